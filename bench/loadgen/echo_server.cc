// The floor under any gRPC server in C++: takes every call and answers at once.
//
// The name of the method is the size of the answer in bytes, so that a
// measurement can ask for the answer that the agent would give:
// /bench.Echo/4021 answers 4021 bytes. /bench.Model7000/4021 first works for
// 7000 microseconds of a core and reads 14 MB in that time, as an inference of
// MobileNetV2 does with its weights, so that the caches are as they are after
// one. With a file, its bytes are the answer to every call.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 2;
constexpr int kWindowBytes = 16 << 20;
constexpr int kFrameBytes = (1 << 24) - 1;
constexpr char kModel[] = "/bench.Model";
constexpr std::size_t kWeightBytes = 14'000'000;

// What the calling thread has had of a core, so that a thread that is kept from it has as much left to do as a model would.
std::chrono::nanoseconds worked() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// Each thread has weights of its own, as each instance of a model has those that XNNPACK packs.
void be_a_model(std::size_t microseconds) {
  const auto end = worked() + std::chrono::microseconds(microseconds);
  thread_local const std::vector<std::uint64_t> weights(kWeightBytes / sizeof(std::uint64_t), 1);
  if (std::accumulate(weights.begin(), weights.end(), std::uint64_t{0}) != weights.size()) std::abort();
  while (worked() < end) {
  }
}

// The number that follows `prefix` in a method's name; none where it begins otherwise.
std::optional<std::size_t> number_after(const char* prefix, const std::string& method) {
  const std::size_t length = std::strlen(prefix);
  if (method.compare(0, length, prefix) != 0) return std::nullopt;
  return std::strtoul(method.c_str() + length, nullptr, 10);
}

// One call: asked for, read, answered, gone. `ready` is the answer to all of them, if there is one.
class Call {
 public:
  Call(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue, const std::optional<grpc::Slice>& ready)
      : service_(service), queue_(queue), ready_(ready), stream_(&context_) {
    service_->RequestCall(&context_, &stream_, queue_, queue_, this);
  }

  void proceed(bool ok) {
    if (state_ == State::kWaiting && ok) {
      new Call(service_, queue_, ready_);
      state_ = State::kReading;
      stream_.Read(&request_, this);
    } else if (state_ == State::kReading && ok) {
      state_ = State::kAnswering;
      if (ready_) {
        stream_.WriteAndFinish(grpc::ByteBuffer(&*ready_, 1), {}, grpc::Status::OK, this);
        return;
      }
      const std::string& method = context_.method();
      if (const auto microseconds = number_after(kModel, method)) be_a_model(*microseconds);
      const std::size_t size = std::strtoul(method.c_str() + method.rfind('/') + 1, nullptr, 10);
      const grpc::Slice slice(std::string(size, '\0'));
      stream_.WriteAndFinish(grpc::ByteBuffer(&slice, 1), {}, grpc::Status::OK, this);
    } else {
      delete this;
    }
  }

 private:
  enum class State { kWaiting, kReading, kAnswering };

  grpc::AsyncGenericService* service_;
  grpc::ServerCompletionQueue* queue_;
  const std::optional<grpc::Slice>& ready_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer request_;
  State state_ = State::kWaiting;
};

void serve(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue,
           const std::optional<grpc::Slice>& ready) {
  new Call(service, queue, ready);
  void* tag = nullptr;
  for (bool ok = false; queue->Next(&tag, &ok);) static_cast<Call*>(tag)->proceed(ok);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::cerr << "usage: echo_server SOCKET | HOST:PORT [ANSWER-FILE]\n";
    return 2;
  }
  const std::string where = argv[1];
  std::optional<grpc::Slice> ready;
  if (argc == 3) {
    std::ifstream file(argv[2], std::ios::binary);
    if (!file) {
      std::cerr << argv[2] << " cannot be read\n";
      return 2;
    }
    ready.emplace(std::string(std::istreambuf_iterator<char>(file), {}));
  }
  grpc::AsyncGenericService service;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  // A large request comes without a wait for leave to go on.
  builder.AddChannelArgument("grpc.http2.lookahead_bytes", kWindowBytes);
  builder.AddChannelArgument("grpc.http2.max_frame_size", kFrameBytes);
  builder.AddListeningPort(where.find(':') == std::string::npos ? "unix:" + where : where,
                           grpc::InsecureServerCredentials());
  builder.RegisterAsyncGenericService(&service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int i = 0; i < kThreads; ++i) queues.push_back(builder.AddCompletionQueue());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;
  std::vector<std::thread> threads;
  for (const auto& queue : queues) threads.emplace_back(serve, &service, queue.get(), std::cref(ready));
  for (std::thread& thread : threads) thread.join();
}
