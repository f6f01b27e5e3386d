#include "shm.hh"

#include <sys/ipc.h>
#include <sys/shm.h>

#include <cerrno>
#include <system_error>

namespace sagemaker_edge {
namespace {

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

SharedSegment::SharedSegment(std::size_t size) : id_(shmget(IPC_PRIVATE, size, IPC_CREAT | 0600)), size_(size), address_(nullptr) {
  if (id_ < 0) fail("shmget");
  address_ = shmat(id_, nullptr, 0);
  if (address_ == reinterpret_cast<void*>(-1)) {
    const int error = errno;
    shmctl(id_, IPC_RMID, nullptr);
    errno = error;
    fail("shmat");
  }
}

SharedSegment::~SharedSegment() {
  shmdt(address_);
  shmctl(id_, IPC_RMID, nullptr);
}

void SharedSegment::seal(std::optional<gid_t> group) {
  set_mode(group ? 0440 : 0400, group);
}

void SharedSegment::unseal() { set_mode(0600, std::nullopt); }

void SharedSegment::set_mode(unsigned short mode, std::optional<gid_t> group) {
  shmid_ds status{};
  if (shmctl(id_, IPC_STAT, &status) < 0) fail("shmctl IPC_STAT");
  status.shm_perm.mode = mode;
  if (group) status.shm_perm.gid = *group;
  if (shmctl(id_, IPC_SET, &status) < 0) fail("shmctl IPC_SET");
}

}  // namespace sagemaker_edge
