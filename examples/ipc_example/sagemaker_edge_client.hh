// An application's view of the agent: one object, one method a call.
#ifndef SAGEMAKER_EDGE_CLIENT_HH_
#define SAGEMAKER_EDGE_CLIENT_HH_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "sagemaker_edge.grpc.pb.h"
#include "shm.hh"

namespace sagemaker_edge {

namespace api = ::AWS::SageMaker::Edge;

// A call that the agent refused, or could not be asked. The text is the
// agent's own and fit to be shown; the code says what kind of refusal it is.
class CallError : public std::runtime_error {
 public:
  CallError(const std::string& call, const grpc::Status& status);
  grpc::StatusCode code() const { return code_; }

 private:
  grpc::StatusCode code_;
};

// Bytes that `metadata` stands for: elements times bytes an element.
// Throws std::invalid_argument for a type this program does not know or a
// dimension that is not fixed.
std::size_t tensor_bytes(const api::TensorMetadata& metadata);

// A tensor that carries its bytes (C order, little-endian) in the message.
api::Tensor inline_tensor(const api::TensorMetadata& metadata, std::string bytes);

// A tensor whose bytes lie at the start of a sealed segment.
api::Tensor shared_tensor(const api::TensorMetadata& metadata, const SharedSegment& segment);

// Speaks to the agent on one Unix socket. May be used by several threads at
// once. Every method throws CallError.
class Client {
 public:
  // `socket_path`: the path that the agent was started with (-a).
  explicit Client(const std::string& socket_path);

  std::vector<api::Model> list_models();
  api::Model load_model(const std::string& path, const std::string& name);
  api::Model describe_model(const std::string& name);
  void unload_model(const std::string& name);

  // Outputs come back in the model's order, always with their bytes.
  std::vector<api::Tensor> predict(const std::string& name, const std::vector<api::Tensor>& inputs);

  // Returns as soon as the agent has taken the capture over; ask
  // capture_status() whether it arrived. `id` must not have been used before.
  void capture(const std::string& model_name, const std::string& id, const std::vector<api::Tensor>& inputs,
               const std::vector<api::Tensor>& outputs);
  api::CaptureDataStatus capture_status(const std::string& id);

 private:
  std::unique_ptr<api::Agent::Stub> agent_;
};

}  // namespace sagemaker_edge

#endif  // SAGEMAKER_EDGE_CLIENT_HH_
