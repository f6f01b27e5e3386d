// The floor under any gRPC server in C++: takes every call and answers at once.
//
// The name of the method is the size of the answer in bytes, so that a
// measurement can ask for the answer that the agent would give:
// /bench.Echo/4021 answers 4021 bytes. /bench.Copy12582912/4021 first copies
// 12582912 bytes out of shared memory, as an agent does with a large input;
// /bench.Busy7000/4021 first is busy for 7000 microseconds, as with a model.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 2;
constexpr char kCopy[] = "/bench.Copy", kBusy[] = "/bench.Busy";

// Copies so many bytes of shared memory to memory of its own; one call at a time.
void copy(std::size_t size) {
  static std::mutex lock;
  static std::vector<char> target;
  static void* source = nullptr;
  const std::lock_guard<std::mutex> guard(lock);
  if (target.size() != size) {
    if (source) munmap(source, target.size());
    target.assign(size, '\1');
    source = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (source == MAP_FAILED) throw std::bad_alloc();
    std::memset(source, 2, size);
  }
  std::memcpy(target.data(), source, size);
}

void be_busy(std::size_t microseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (std::chrono::steady_clock::now() < end) {
  }
}

// One call: asked for, read, answered, gone.
class Call {
 public:
  Call(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue)
      : service_(service), queue_(queue), stream_(&context_) {
    service_->RequestCall(&context_, &stream_, queue_, queue_, this);
  }

  void proceed(bool ok) {
    if (state_ == State::kWaiting && ok) {
      new Call(service_, queue_);
      state_ = State::kReading;
      stream_.Read(&request_, this);
    } else if (state_ == State::kReading && ok) {
      state_ = State::kAnswering;
      const std::string& method = context_.method();
      if (method.rfind(kCopy, 0) == 0) copy(std::strtoul(method.c_str() + sizeof kCopy - 1, nullptr, 10));
      if (method.rfind(kBusy, 0) == 0) be_busy(std::strtoul(method.c_str() + sizeof kBusy - 1, nullptr, 10));
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
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer request_;
  State state_ = State::kWaiting;
};

void serve(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue) {
  new Call(service, queue);
  void* tag = nullptr;
  for (bool ok = false; queue->Next(&tag, &ok);) static_cast<Call*>(tag)->proceed(ok);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: echo_server SOCKET\n";
    return 2;
  }
  grpc::AsyncGenericService service;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddListeningPort(std::string("unix:") + argv[1], grpc::InsecureServerCredentials());
  builder.RegisterAsyncGenericService(&service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int i = 0; i < kThreads; ++i) queues.push_back(builder.AddCompletionQueue());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;
  std::vector<std::thread> threads;
  for (const auto& queue : queues) threads.emplace_back(serve, &service, queue.get());
  for (std::thread& thread : threads) thread.join();
}
