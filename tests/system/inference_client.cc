// A client of the Open Inference Protocol on generated C++ stubs: inference_client SOCKET MODEL.
// Prints one JSON object: what the server says of itself, the answer to ones, and the status of a refusal.
#include <grpcpp/grpcpp.h>

#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "open_inference.grpc.pb.h"

int main(int, char** arguments) {
  const std::string model = arguments[2];
  const auto channel = grpc::CreateChannel(std::string("unix:") + arguments[1], grpc::InsecureChannelCredentials());
  const auto stub = inference::GRPCInferenceService::NewStub(channel);
  const auto must = [](const grpc::Status& status) {
    if (status.ok()) return;
    std::cerr << status.error_code() << ": " << status.error_message() << "\n";
    std::exit(1);
  };

  grpc::ClientContext for_server, for_model, for_infer, for_refusal;
  inference::ServerMetadataResponse server;
  must(stub->ServerMetadata(&for_server, {}, &server));
  inference::ModelMetadataRequest about;
  about.set_name(model);
  inference::ModelMetadataResponse described;
  must(stub->ModelMetadata(&for_model, about, &described));

  inference::ModelInferRequest request;
  request.set_model_name(model);
  request.set_id("from-c++");
  auto* input = request.add_inputs();
  input->set_name(described.inputs(0).name());
  input->set_datatype(described.inputs(0).datatype());
  std::size_t elements = 1;
  for (const auto size : described.inputs(0).shape()) {
    input->add_shape(size < 0 ? 1 : size);
    elements *= size < 0 ? 1 : size;
  }
  const std::vector<float> ones(elements, 1.0F);
  request.add_raw_input_contents(ones.data(), elements * sizeof(float));
  inference::ModelInferResponse answer;
  must(stub->ModelInfer(&for_infer, request, &answer));

  inference::ModelInferRequest other;
  other.set_model_name("other");
  inference::ModelInferResponse nothing;
  const auto refused = stub->ModelInfer(&for_refusal, other, &nothing);

  std::vector<float> output(answer.raw_output_contents(0).size() / sizeof(float));
  std::memcpy(output.data(), answer.raw_output_contents(0).data(), answer.raw_output_contents(0).size());
  std::cout << R"({"server": ")" << server.name() << R"(", "id": ")" << answer.id() << R"(", "refused": )"
            << refused.error_code() << R"(, "output": [)";
  for (std::size_t at = 0; at < output.size(); ++at) std::cout << (at ? ", " : "") << output[at];
  std::cout << "]}\n";
}
