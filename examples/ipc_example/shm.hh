// A System V shared-memory segment that an application fills and the agent reads.
#ifndef SHM_HH_
#define SHM_HH_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace sagemaker_edge {

// Owned by one object: created private and writable, sealed before the agent
// sees it, detached and removed with the object.
//
// The agent refuses a segment that anyone may still write to, so the order is:
// create, fill data(), seal(), call the agent with id(). To fill it again,
// call unseal() first, and never while a call that uses it is under way.
class SharedSegment {
 public:
  // Creates a segment of `size` bytes with mode 0600.
  // Throws std::system_error.
  explicit SharedSegment(std::size_t size);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  // The number that goes into SharedMemoryHandle.segment_id.
  std::uint64_t id() const { return static_cast<std::uint64_t>(id_); }
  std::size_t size() const { return size_; }
  void* data() { return address_; }

  // Sets mode 0400: enough for an agent that runs as the same user. With
  // `group` the segment goes to that group with mode 0440, for an agent that
  // runs as a user of its own. Throws std::system_error.
  void seal(std::optional<gid_t> group = std::nullopt);

  // Sets mode 0600 again. Throws std::system_error.
  void unseal();

 private:
  void set_mode(unsigned short mode, std::optional<gid_t> group);

  int id_;
  std::size_t size_;
  void* address_;
};

}  // namespace sagemaker_edge

#endif  // SHM_HH_
