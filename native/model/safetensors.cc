#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/dtype.h"
#include "core/error.h"
#include "core/json.h"

namespace eepo {
namespace {

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  // a pipe without a writer must not block the device's thread: it is refused below
  File fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  check(fd.get() >= 0, ErrorCode::InvalidFile, path, ": cannot be opened (", std::strerror(errno), ")");
  struct stat info{};
  check(::fstat(fd.get(), &info) == 0 && S_ISREG(info.st_mode), ErrorCode::InvalidFile, path,
        ": is not a regular file");
  size_ = static_cast<size_t>(info.st_size);
  check(size_ > 0, ErrorCode::InvalidFile, path, ": is too short for a safetensors file (0 bytes)");
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  check(map != MAP_FAILED, errno == ENOMEM ? ErrorCode::OutOfMemory : ErrorCode::InvalidFile, path,
        ": cannot be mapped (", std::strerror(errno), ")");
  map_ = static_cast<const uint8_t*>(map);
  try {
    tensors_ = parse_safetensors({static_cast<const char*>(map), size_}, path_);
  } catch (...) {
    ::munmap(const_cast<uint8_t*>(map_), size_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { ::munmap(const_cast<uint8_t*>(map_), size_); }

namespace {

template <class From, class To, class Convert>
void convert_each(const FileTensor& tensor, To* out, Convert convert) {
#pragma omp parallel for schedule(static) if (tensor.elements > (1 << 16))
  for (int64_t i = 0; i < tensor.elements; ++i) {
    From x;  // the data need not be aligned
    std::memcpy(&x, tensor.data + i * static_cast<int64_t>(sizeof(From)), sizeof(From));
    out[i] = convert(x);
  }
}

}  // namespace

void convert(const FileTensor& tensor, DType dtype, void* out) {
  const bool same = (dtype == DType::Float32 && tensor.dtype == FileDType::F32) ||
                    (dtype == DType::BFloat16 && tensor.dtype == FileDType::BF16);
  if (same) {
    if (tensor.bytes) std::memcpy(out, tensor.data, tensor.bytes);
    return;
  }
  const auto from = [&](auto element, auto widen) {
    using From = decltype(element);
    if (dtype == DType::Float32)
      convert_each<From>(tensor, static_cast<float*>(out), widen);
    else
      convert_each<From>(tensor, static_cast<uint16_t*>(out), [&](From x) { return float_to_bf16(widen(x)); });
  };
  switch (tensor.dtype) {
    case FileDType::F32: return from(float{}, [](float x) { return x; });
    case FileDType::BF16: return from(uint16_t{}, bf16_to_float);
    case FileDType::F16: return from(uint16_t{}, f16_to_float);
    case FileDType::F64: return from(double{}, [](double x) { return static_cast<float>(x); });
    default:
      fail(ErrorCode::Unsupported, "dtype ", tensor.dtype_name,
           " of a weight is not supported; use float32, bfloat16 or float16");
  }
}

bool same_values(const FileTensor& a, const FileTensor& b) {
  if (a.shape != b.shape) return false;
  if (a.dtype == b.dtype) return a.bytes == 0 || std::memcmp(a.data, b.data, a.bytes) == 0;
  constexpr int64_t kBlock = 1 << 20;
  std::vector<float> x(std::min(a.elements, kBlock)), y(x.size());
  const auto part = [](const FileTensor& tensor, int64_t begin, int64_t count) {
    FileTensor out = tensor;
    const int64_t element = tensor.bytes / tensor.elements;
    out.data += begin * element;
    out.elements = count;
    out.bytes = count * element;
    return out;
  };
  for (int64_t begin = 0; begin < a.elements; begin += kBlock) {
    const int64_t count = std::min(kBlock, a.elements - begin);
    convert(part(a, begin, count), DType::Float32, x.data());
    convert(part(b, begin, count), DType::Float32, y.data());
    if (std::memcmp(x.data(), y.data(), count * sizeof(float)) != 0) return false;
  }
  return true;
}

void release(const FileTensor& tensor) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data);
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + tensor.bytes) / page * page;
  // advice: whether it is taken changes nothing that can be read
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

namespace {

int64_t elements(const NamedTensor& t) {
  int64_t n = 1;
  for (const int64_t d : t.shape) n *= d;
  return n;
}

std::string header_of(const std::vector<NamedTensor>& tensors, DType dtype) {
  const char* name = dtype == DType::BFloat16 ? "BF16" : "F32";
  std::string header = R"({"__metadata__":{"format":"pt"})";
  int64_t offset = 0;
  for (const NamedTensor& t : tensors) {
    header += ',';
    append_json_string(header, t.name);
    header += std::string(R"(:{"dtype":")") + name + R"(","shape":[)";
    for (size_t i = 0; i < t.shape.size(); ++i) header += (i ? "," : "") + std::to_string(t.shape[i]);
    const int64_t end = offset + elements(t) * static_cast<int64_t>(size_of(dtype));
    header += R"(],"data_offsets":[)" + std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

// A file that appears under its name when it is whole.
class Output {
 public:
  Output(const std::string& path, const CancelToken& cancel)
      : path_(path),
        temporary_(path + ".tmp"),
        cancel_(cancel),
        fd_(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    check(fd_.get() >= 0, ErrorCode::InvalidFile, temporary_, ": cannot be created (", std::strerror(errno), ")");
  }
  ~Output() {
    if (!done_) ::unlink(temporary_.c_str());
  }
  Output(const Output&) = delete;

  void put(const void* data, int64_t bytes) {
    const auto* p = static_cast<const uint8_t*>(data);
    while (bytes > 0) {
      cancel_.check();
      const ssize_t n = ::write(fd_.get(), p, std::min<int64_t>(bytes, 64 << 20));
      if (n < 0 && errno == EINTR) continue;
      check(n > 0, ErrorCode::InvalidFile, temporary_, ": write failed (", std::strerror(errno),
            "); free some disk space and save again");
      p += n;
      bytes -= n;
    }
  }
  void finish() {
    check(::fsync(fd_.get()) == 0 && ::close(fd_.release()) == 0, ErrorCode::InvalidFile, temporary_, ": sync failed (",
          std::strerror(errno), ")");
    check(::rename(temporary_.c_str(), path_.c_str()) == 0, ErrorCode::InvalidFile, path_, ": cannot be replaced (",
          std::strerror(errno), ")");
    done_ = true;
  }

 private:
  std::string path_, temporary_;
  const CancelToken& cancel_;
  File fd_;
  bool done_ = false;
};

}  // namespace

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors, DType dtype,
                       const TensorSource& source, const CancelToken& cancel) {
  constexpr int64_t kChunk = int64_t{4} << 20;  // elements held at a time
  const std::string header = header_of(tensors, dtype);
  const uint64_t header_size = header.size();
  Output out(path, cancel);
  out.put(&header_size, sizeof(header_size));
  out.put(header.data(), static_cast<int64_t>(header.size()));
  std::vector<float> values;
  std::vector<uint16_t> narrow;
  for (size_t i = 0; i < tensors.size(); ++i)
    for (int64_t n = elements(tensors[i]), begin = 0; begin < n; begin += kChunk) {
      const int64_t count = std::min(kChunk, n - begin);
      values.resize(count);
      source(i, begin, count, values.data());
      if (dtype == DType::BFloat16) {
        narrow.resize(count);
        std::ranges::transform(values, narrow.begin(), float_to_bf16);
        out.put(narrow.data(), count * static_cast<int64_t>(sizeof(uint16_t)));
      } else {
        out.put(values.data(), count * static_cast<int64_t>(sizeof(float)));
      }
    }
  out.finish();
}

}  // namespace eepo
