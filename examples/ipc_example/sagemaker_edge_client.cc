#include "sagemaker_edge_client.hh"

#include <chrono>
#include <cstdint>
#include <utility>

namespace sagemaker_edge {
namespace {

std::string describe(const std::string& call, const grpc::Status& status) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    return call + ": no agent answers on the socket (" + status.error_message() + ")";
  }
  return call + ": " + status.error_message();
}

std::size_t element_bytes(api::DataType type) {
  switch (type) {
    case api::UINT8:
    case api::INT8:
    case api::BOOL:
      return 1;
    case api::INT16:
    case api::UINT16:
    case api::FLOAT16:
      return 2;
    case api::INT32:
    case api::UINT32:
    case api::FLOAT32:
      return 4;
    case api::INT64:
    case api::UINT64:
    case api::FLOAT64:
      return 8;
    default:
      throw std::invalid_argument("unknown tensor type " + std::to_string(type));
  }
}

std::shared_ptr<grpc::Channel> connect(const std::string& socket_path) {
  grpc::ChannelArguments arguments;
  // The agent bounds what it sends; a large output is not an error here.
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel("unix:" + socket_path, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

CallError::CallError(const std::string& call, const grpc::Status& status)
    : std::runtime_error(describe(call, status)), code_(status.error_code()) {}

std::size_t tensor_bytes(const api::TensorMetadata& metadata) {
  std::size_t bytes = element_bytes(metadata.data_type());
  for (const std::int32_t dimension : metadata.shape()) {
    if (dimension < 0) throw std::invalid_argument("tensor " + metadata.name() + " has a dimension that is not fixed");
    bytes *= static_cast<std::size_t>(dimension);
  }
  return bytes;
}

api::Tensor inline_tensor(const api::TensorMetadata& metadata, std::string bytes) {
  api::Tensor tensor;
  *tensor.mutable_tensor_metadata() = metadata;
  tensor.set_byte_data(std::move(bytes));
  return tensor;
}

api::Tensor shared_tensor(const api::TensorMetadata& metadata, const SharedSegment& segment) {
  api::Tensor tensor;
  *tensor.mutable_tensor_metadata() = metadata;
  api::SharedMemoryHandle* handle = tensor.mutable_shared_memory_handle();
  handle->set_segment_id(segment.id());
  handle->set_offset(0);
  handle->set_size(segment.size());
  return tensor;
}

Client::Client(const std::string& socket_path) : agent_(api::Agent::NewStub(connect(socket_path))) {}

std::vector<api::Model> Client::list_models() {
  grpc::ClientContext context;
  api::ListModelsResponse response;
  const grpc::Status status = agent_->ListModels(&context, {}, &response);
  if (!status.ok()) throw CallError("ListModels", status);
  return {response.models().begin(), response.models().end()};
}

api::Model Client::load_model(const std::string& path, const std::string& name) {
  grpc::ClientContext context;
  api::LoadModelRequest request;
  request.set_url(path);
  request.set_name(name);
  api::LoadModelResponse response;
  const grpc::Status status = agent_->LoadModel(&context, request, &response);
  if (!status.ok()) throw CallError("LoadModel", status);
  return response.model();
}

api::Model Client::describe_model(const std::string& name) {
  grpc::ClientContext context;
  api::DescribeModelRequest request;
  request.set_name(name);
  api::DescribeModelResponse response;
  const grpc::Status status = agent_->DescribeModel(&context, request, &response);
  if (!status.ok()) throw CallError("DescribeModel", status);
  return response.model();
}

void Client::unload_model(const std::string& name) {
  grpc::ClientContext context;
  api::UnLoadModelRequest request;
  request.set_name(name);
  api::UnLoadModelResponse response;
  const grpc::Status status = agent_->UnLoadModel(&context, request, &response);
  if (!status.ok()) throw CallError("UnLoadModel", status);
}

std::vector<api::Tensor> Client::predict(const std::string& name, const std::vector<api::Tensor>& inputs) {
  grpc::ClientContext context;
  api::PredictRequest request;
  request.set_name(name);
  for (const api::Tensor& input : inputs) *request.add_tensors() = input;
  api::PredictResponse response;
  const grpc::Status status = agent_->Predict(&context, request, &response);
  if (!status.ok()) throw CallError("Predict", status);
  return {response.tensors().begin(), response.tensors().end()};
}

void Client::capture(const std::string& model_name, const std::string& id, const std::vector<api::Tensor>& inputs,
                     const std::vector<api::Tensor>& outputs) {
  grpc::ClientContext context;
  api::CaptureDataRequest request;
  request.set_model_name(model_name);
  request.set_capture_id(id);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now);
  request.mutable_inference_timestamp()->set_seconds(seconds.count());
  request.mutable_inference_timestamp()->set_nanos(
      static_cast<std::int32_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now - seconds).count()));
  for (const api::Tensor& input : inputs) *request.add_input_tensors() = input;
  for (const api::Tensor& output : outputs) *request.add_output_tensors() = output;
  api::CaptureDataResponse response;
  const grpc::Status status = agent_->CaptureData(&context, request, &response);
  if (!status.ok()) throw CallError("CaptureData", status);
}

api::CaptureDataStatus Client::capture_status(const std::string& id) {
  grpc::ClientContext context;
  api::GetCaptureDataStatusRequest request;
  request.set_capture_id(id);
  api::GetCaptureDataStatusResponse response;
  const grpc::Status status = agent_->GetCaptureDataStatus(&context, request, &response);
  if (!status.ok()) throw CallError("GetCaptureDataStatus", status);
  return response.status();
}

}  // namespace sagemaker_edge
