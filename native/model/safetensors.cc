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

constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit

struct DTypeName {
  const char* name;
  FileDType dtype;
  int64_t bytes;
};
constexpr DTypeName kDTypes[] = {{"F64", FileDType::F64, 8},   {"F32", FileDType::F32, 4}, {"F16", FileDType::F16, 2},
                                 {"BF16", FileDType::BF16, 2}, {"I64", FileDType::I64, 8}, {"I32", FileDType::I32, 4},
                                 {"I16", FileDType::I16, 2},   {"I8", FileDType::I8, 1},   {"U8", FileDType::U8, 1},
                                 {"BOOL", FileDType::Bool, 1}};

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

FileTensor parse_entry(const Json& entry, const std::string& where, uint64_t data_size, const uint8_t* data) {
  const auto bad = [&](const auto&... what) { fail(ErrorCode::InvalidFile, where, ": ", what...); };
  if (entry.kind != Json::Kind::Object) bad("its header entry is not an object");
  const Json* dtype = entry.find("dtype");
  const Json* shape = entry.find("shape");
  const Json* offsets = entry.find("data_offsets");
  if (!dtype || dtype->kind != Json::Kind::String) bad("dtype is missing");
  if (!shape || shape->kind != Json::Kind::Array) bad("shape is missing");
  if (!offsets || offsets->kind != Json::Kind::Array || offsets->array.size() != 2) bad("data_offsets is missing");

  FileTensor tensor;
  tensor.dtype_name = dtype->string;
  int64_t element_bytes = 0;
  for (const auto& known : kDTypes)
    if (tensor.dtype_name == known.name) {
      tensor.dtype = known.dtype;
      element_bytes = known.bytes;
    }
  tensor.elements = 1;
  for (const Json& d : shape->array) {
    if (d.kind != Json::Kind::Integer || d.integer < 0) bad("shape has an entry that is not a size");
    if (__builtin_mul_overflow(tensor.elements, d.integer, &tensor.elements)) bad("shape overflows");
    tensor.shape.push_back(d.integer);
  }
  const Json &first = offsets->array[0], &last = offsets->array[1];
  if (first.kind != Json::Kind::Integer || last.kind != Json::Kind::Integer || first.integer < 0 ||
      last.integer < first.integer || static_cast<uint64_t>(last.integer) > data_size)
    bad("data_offsets lie outside the file (it may be truncated: download it again)");
  tensor.bytes = last.integer - first.integer;
  int64_t expected = 0;
  if (element_bytes && (__builtin_mul_overflow(tensor.elements, element_bytes, &expected) || expected != tensor.bytes))
    bad("dtype ", tensor.dtype_name, " and its shape need ", expected, " bytes, data_offsets span ", tensor.bytes);
  tensor.data = data + first.integer;
  return tensor;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  // a pipe without a writer must not block the device's thread: it is refused below
  File fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  check(fd.get() >= 0, ErrorCode::InvalidFile, path, ": cannot be opened (", std::strerror(errno), ")");
  struct stat info{};
  check(::fstat(fd.get(), &info) == 0 && S_ISREG(info.st_mode), ErrorCode::InvalidFile, path,
        ": is not a regular file");
  size_ = static_cast<size_t>(info.st_size);
  check(size_ >= 8, ErrorCode::InvalidFile, path, ": is too short for a safetensors file (", size_, " bytes)");
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  check(map != MAP_FAILED, ErrorCode::InvalidFile, path, ": cannot be mapped (", std::strerror(errno), ")");
  map_ = static_cast<const uint8_t*>(map);
  try {
    parse();
  } catch (...) {
    ::munmap(const_cast<uint8_t*>(map_), size_);
    throw;
  }
}

void SafetensorsFile::parse() {
  uint64_t header_size = 0;
  std::memcpy(&header_size, map_, 8);
  check(header_size <= kMaxHeader && header_size <= size_ - 8, ErrorCode::InvalidFile, path_, ": header length ",
        header_size, " does not fit the file of ", size_, " bytes (not a safetensors file, or truncated)");
  const Json header = parse_json({reinterpret_cast<const char*>(map_) + 8, header_size}, path_);
  check(header.kind == Json::Kind::Object, ErrorCode::InvalidFile, path_, ": its header is not a JSON object");
  const uint64_t data_size = size_ - 8 - header_size;
  std::vector<std::pair<int64_t, int64_t>> spans;
  for (const auto& [name, entry] : header.object) {
    if (name == "__metadata__") continue;
    const uint8_t* data = map_ + 8 + header_size;
    FileTensor tensor = parse_entry(entry, path_ + ": tensor " + name, data_size, data);
    spans.emplace_back(tensor.data - data, tensor.bytes);
    tensors_.emplace(name, std::move(tensor));
  }
  std::sort(spans.begin(), spans.end());
  int64_t end = 0;
  for (const auto& [begin, bytes] : spans) {
    check(begin == end, ErrorCode::InvalidFile, path_, ": tensors overlap or leave a hole at data byte ",
          std::min(begin, end));
    end = begin + bytes;
  }
  check(static_cast<uint64_t>(end) == data_size, ErrorCode::InvalidFile, path_, ": ", data_size - end,
        " bytes after the last tensor");
}

SafetensorsFile::~SafetensorsFile() { ::munmap(const_cast<uint8_t*>(map_), size_); }

void convert_to_float(const FileTensor& tensor, float* out) {
  const int64_t n = tensor.elements;
  const auto each = [&](auto element, auto convert) {  // the data need not be aligned
    using T = decltype(element);
#pragma omp parallel for schedule(static) if (n > (1 << 16))
    for (int64_t i = 0; i < n; ++i) {
      T x;
      std::memcpy(&x, tensor.data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
      out[i] = convert(x);
    }
  };
  switch (tensor.dtype) {
    case FileDType::F32: std::memcpy(out, tensor.data, n * sizeof(float)); return;
    case FileDType::BF16: return each(uint16_t{}, bf16_to_float);
    case FileDType::F16: return each(uint16_t{}, f16_to_float);
    case FileDType::F64: return each(double{}, [](double x) { return static_cast<float>(x); });
    default:
      fail(ErrorCode::Unsupported, "dtype ", tensor.dtype_name,
           " of a weight is not supported; use float32, bfloat16 or float16");
  }
}

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors, const CancelToken& cancel) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  int64_t offset = 0;
  const auto elements = [](const NamedTensor& t) {
    int64_t n = 1;
    for (const int64_t d : t.shape) n *= d;
    return n;
  };
  for (const NamedTensor& t : tensors) {
    header += ',';
    append_json_string(header, t.name);
    header += ":{\"dtype\":\"F32\",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i) header += (i ? "," : "") + std::to_string(t.shape[i]);
    const int64_t bytes = elements(t) * 4;
    header += "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(offset + bytes) + "]}";
    offset += bytes;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');

  const std::string temporary = path + ".tmp";
  File fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  check(fd.get() >= 0, ErrorCode::InvalidFile, temporary, ": cannot be created (", std::strerror(errno), ")");
  const auto put = [&](const void* data, int64_t bytes) {
    const auto* p = static_cast<const uint8_t*>(data);
    while (bytes > 0) {
      cancel.check();
      const ssize_t n = ::write(fd.get(), p, std::min<int64_t>(bytes, 64 << 20));
      if (n < 0 && errno == EINTR) continue;
      check(n > 0, ErrorCode::InvalidFile, temporary, ": write failed (", std::strerror(errno),
            "); free some disk space and save again");
      p += n;
      bytes -= n;
    }
  };
  try {
    const uint64_t header_size = header.size();
    put(&header_size, 8);
    put(header.data(), static_cast<int64_t>(header.size()));
    for (const NamedTensor& t : tensors) put(t.data, elements(t) * 4);
    check(::fsync(fd.get()) == 0 && ::close(fd.release()) == 0, ErrorCode::InvalidFile, temporary, ": sync failed (",
          std::strerror(errno), ")");
    check(::rename(temporary.c_str(), path.c_str()) == 0, ErrorCode::InvalidFile, path, ": cannot be replaced (",
          std::strerror(errno), ")");
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace eepo
