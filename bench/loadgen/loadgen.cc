// Makes calls from one or several clients and prints their latencies as JSON,
// once for each line of standard input, on new connections each time. A line
// that is not empty is the method to call.
//
// Clients of one process share gRPC's poller and wake each other for what has
// come for the other. Applications do not: to measure several of them, start a
// load generator for each.
//
// Requests are serialised once, and answers are not parsed, so that what is
// measured is the server. Every answer must equal the first.
#include <getopt.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sagemaker_edge_client.hh"

namespace {

namespace api = sagemaker_edge::api;
using Clock = std::chrono::steady_clock;

constexpr char kEmpty[] = "/AWS.SageMaker.Edge.Agent/ListModels";
constexpr char kUsage[] =
    "usage: loadgen --target SOCKET [options]\n"
    "  --agent SOCKET     the agent that describes the model (default: the target)\n"
    "  --model NAME       Predict on this model; without it, ListModels is called\n"
    "  --method METHOD    call this method of the target with the same request\n"
    "  --mode MODE        inline (default), shared, or mixed (by turns)\n"
    "  --clients N        each with a connection of its own (default 1)\n"
    "  --calls N          measured calls of each client (default 1000)\n"
    "  --seconds S        stop after so long, however many calls were made\n"
    "  --warmup N         calls before the measured ones (default 50)\n"
    "  --pause-ms N       pause after each call (default 0)\n"
    "  --int32 N          fill INT32 inputs with N (default 0)\n"
    "  --reconnect N      a new connection and new segments after so many calls\n";

struct Options {
  std::string target, agent, model, method, mode = "inline";
  int clients = 1;
  long calls = 1000, warmup = 50, reconnect = 0, pause_ms = 0;
  std::int32_t int32 = 0;
  double seconds = 1e9;
};

Options parse(int argc, char** argv) {
  Options options;
  const option words[] = {{"target", 1, nullptr, 't'},   {"agent", 1, nullptr, 'a'},  {"model", 1, nullptr, 'm'},
                          {"method", 1, nullptr, 'M'},   {"mode", 1, nullptr, 'o'},   {"clients", 1, nullptr, 'c'},
                          {"calls", 1, nullptr, 'n'},    {"seconds", 1, nullptr, 's'}, {"warmup", 1, nullptr, 'w'},
                          {"reconnect", 1, nullptr, 'r'}, {"int32", 1, nullptr, 'i'}, {"pause-ms", 1, nullptr, 'p'},
                          {nullptr, 0, nullptr, 0}};
  for (int word; (word = getopt_long(argc, argv, "", words, nullptr)) != -1;) {
    switch (word) {
      case 't': options.target = optarg; break;
      case 'a': options.agent = optarg; break;
      case 'm': options.model = optarg; break;
      case 'M': options.method = optarg; break;
      case 'o': options.mode = optarg; break;
      case 'c': options.clients = std::atoi(optarg); break;
      case 'n': options.calls = std::atol(optarg); break;
      case 's': options.seconds = std::atof(optarg); break;
      case 'w': options.warmup = std::atol(optarg); break;
      case 'r': options.reconnect = std::atol(optarg); break;
      case 'i': options.int32 = std::atoi(optarg); break;
      case 'p': options.pause_ms = std::atol(optarg); break;
      default: std::cerr << kUsage; std::exit(2);
    }
  }
  if (options.target.empty() || options.clients < 1) {
    std::cerr << kUsage;
    std::exit(2);
  }
  if (options.agent.empty()) options.agent = options.target;
  return options;
}

// Bytes that any dtype takes as ordinary numbers: floats of 0.5.. for
// FLOAT32, small integers elsewhere.
std::string input_bytes(const api::TensorMetadata& metadata, std::int32_t int32) {
  std::string bytes(sagemaker_edge::tensor_bytes(metadata), '\0');
  if (metadata.data_type() == api::FLOAT32) {
    auto* values = reinterpret_cast<float*>(bytes.data());
    for (std::size_t i = 0; i < bytes.size() / sizeof(float); ++i) values[i] = static_cast<float>(i % 251) / 251.0F;
  } else if (metadata.data_type() == api::INT32) {
    auto* values = reinterpret_cast<std::int32_t*>(bytes.data());
    std::fill(values, values + bytes.size() / sizeof(std::int32_t), int32);
  } else {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i % 100);
  }
  return bytes;
}

grpc::ByteBuffer serialised(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

std::string text(grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  buffer.Dump(&slices);
  std::string out;
  for (const grpc::Slice& slice : slices) out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return out;
}

// What all clients share.
struct Shared {
  explicit Shared(const Options& given) : options(given) {}
  const Options& options;
  std::optional<api::Model> model;
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::mutex lock;
  std::vector<std::uint32_t> nanoseconds_over_ten;  // latencies in 10 ns: up to 42 s
  std::map<int, long> errors;                       // by status code
  std::string first_error;
  std::string answer;
  long different = 0;
};

// One connection and the requests it sends.
class Connection {
 public:
  explicit Connection(Shared& shared) {
    const Options& options = shared.options;
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel("unix:" + options.target, grpc::InsecureChannelCredentials(), arguments);
    method_ = !options.method.empty() ? options.method : shared.model ? "/AWS.SageMaker.Edge.Agent/Predict" : kEmpty;
    if (!shared.model) {
      requests_.push_back(serialised(api::ListModelsRequest()));
      return;
    }
    if (options.mode != "shared") requests_.push_back(request(*shared.model, options, false));
    if (options.mode != "inline") requests_.push_back(request(*shared.model, options, true));
  }

  grpc::Status call(grpc::ByteBuffer& answer) {
    turn_ = (turn_ + 1) % requests_.size();
    grpc::ClientContext context;
    const grpc::internal::RpcMethod method(method_.c_str(), grpc::internal::RpcMethod::NORMAL_RPC, channel_);
    return grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(channel_.get(), method, &context,
                                                                                  requests_[turn_], &answer);
  }

 private:
  grpc::ByteBuffer request(const api::Model& model, const Options& options, bool shared_memory) {
    api::PredictRequest message;
    message.set_name(options.model);
    for (const auto& metadata : model.input_tensor_metadatas()) {
      std::string bytes = input_bytes(metadata, options.int32);
      if (shared_memory) {
        segments_.push_back(std::make_unique<sagemaker_edge::SharedSegment>(bytes.size()));
        std::copy(bytes.begin(), bytes.end(), static_cast<char*>(segments_.back()->data()));
        segments_.back()->seal();
        *message.add_tensors() = sagemaker_edge::shared_tensor(metadata, *segments_.back());
      } else {
        *message.add_tensors() = sagemaker_edge::inline_tensor(metadata, std::move(bytes));
      }
    }
    return serialised(message);
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::string method_;
  std::vector<grpc::ByteBuffer> requests_;
  std::vector<std::unique_ptr<sagemaker_edge::SharedSegment>> segments_;
  std::size_t turn_ = 0;
};

void client(Shared& shared) {
  const Options& options = shared.options;
  auto connection = std::make_unique<Connection>(shared);
  std::vector<std::uint32_t> latencies;
  std::map<int, long> errors;
  std::string answer, first_error;
  long different = 0;

  const auto one = [&](bool measured) {
    grpc::ByteBuffer buffer;
    const auto start = Clock::now();
    const grpc::Status status = connection->call(buffer);
    const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
    if (!status.ok()) {
      ++errors[status.error_code()];
      if (first_error.empty()) first_error = status.error_message();
      return;
    }
    if (measured) latencies.push_back(static_cast<std::uint32_t>(std::min<long long>(took / 10, UINT32_MAX)));
    std::string got = text(buffer);
    if (answer.empty()) answer = std::move(got);
    else if (got != answer) ++different;
  };

  for (long i = 0; i < options.warmup; ++i) one(false);
  ++shared.ready;
  while (!shared.go) std::this_thread::yield();
  const auto end = Clock::now() + std::chrono::duration<double>(options.seconds);
  for (long i = 0; i < options.calls && Clock::now() < end; ++i) {
    if (options.reconnect && i && i % options.reconnect == 0) connection = std::make_unique<Connection>(shared);
    one(true);
    if (options.pause_ms) std::this_thread::sleep_for(std::chrono::milliseconds(options.pause_ms));
  }

  const std::lock_guard<std::mutex> guard(shared.lock);
  shared.nanoseconds_over_ten.insert(shared.nanoseconds_over_ten.end(), latencies.begin(), latencies.end());
  for (const auto& [code, count] : errors) shared.errors[code] += count;
  if (shared.first_error.empty()) shared.first_error = first_error;
  if (shared.answer.empty()) shared.answer = answer;
  shared.different += different + (answer != shared.answer && !answer.empty() ? 1 : 0);
}

void print(Shared& shared, double seconds) {
  std::vector<std::uint32_t>& all = shared.nanoseconds_over_ten;
  std::sort(all.begin(), all.end());
  const auto at = [&](double quantile) {
    if (all.empty()) return 0.0;
    return all[static_cast<std::size_t>(quantile * static_cast<double>(all.size() - 1))] / 100.0;
  };
  double sum = 0;
  for (const std::uint32_t value : all) sum += value / 100.0;
  long failed = 0;
  for (const auto& [code, count] : shared.errors) failed += count;
  std::printf(
      "{\"calls\": %zu, \"seconds\": %.4f, \"per_second\": %.2f, \"mean_us\": %.2f, \"p10_us\": %.2f, \"p50_us\": %.2f, \"p90_us\": %.2f, "
      "\"p99_us\": %.2f, \"max_us\": %.2f, \"answer_bytes\": %zu, \"failed\": %ld, \"different\": %ld}\n",
      all.size(), seconds, static_cast<double>(all.size()) / seconds,
      all.empty() ? 0.0 : sum / static_cast<double>(all.size()), at(0.1), at(0.5), at(0.9), at(0.99), at(1.0),
      shared.answer.size(), failed, shared.different);
  std::fflush(stdout);
  for (const auto& [code, count] : shared.errors) {
    std::cerr << count << " calls failed with status " << code << ": " << shared.first_error << "\n";
  }
}

// One measurement; false where a call failed or an answer differed.
bool measure(const Options& options, const std::optional<api::Model>& model) {
  Shared shared(options);
  shared.model = model;
  std::vector<std::thread> clients;
  for (int i = 0; i < options.clients; ++i) clients.emplace_back([&shared] { client(shared); });
  while (shared.ready < options.clients) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto start = Clock::now();
  shared.go = true;
  for (std::thread& thread : clients) thread.join();
  print(shared, std::chrono::duration<double>(Clock::now() - start).count());
  return shared.errors.empty() && shared.different == 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options = parse(argc, argv);
  bool well = true;
  try {
    std::optional<api::Model> model;
    if (!options.model.empty()) model = sagemaker_edge::Client(options.agent).describe_model(options.model);
    const std::string method = options.method;
    for (std::string line; std::getline(std::cin, line);) {
      options.method = line.empty() ? method : line;
      well = measure(options, model) && well;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return well ? 0 : 1;
}
