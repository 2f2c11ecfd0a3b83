// Weights files in the safetensors format: 8 bytes of header length, a JSON header, raw little-endian data. The
// reader maps the file and hands out views; every offset is checked before the first view exists.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/cancel.h"
#include "core/dtype.h"

namespace eepo {

/// Those that convert takes, and all others of the format.
enum class FileDType : uint8_t { F64, F32, F16, BF16, Other };

struct FileTensor {
  FileDType dtype = FileDType::Other;
  std::string dtype_name;
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;
  int64_t bytes = 0;
  int64_t elements = 0;
};

/// By name. Not hashed: whoever wrote the file can choose names of one hash.
using FileTensors = std::map<std::string, FileTensor>;

/// The tensors of a whole file, as views of its bytes. Throws InvalidFile naming `source` (the path) and the tensor: a
/// header longer than the file or than 100 MB, invalid JSON, unknown dtypes, offsets out of range, overlapping or
/// leaving holes, sizes that disagree with dtype and shape, bytes that are no tensor's.
FileTensors parse_safetensors(std::string_view file, const std::string& source);

class SafetensorsFile {
 public:
  /// Maps and checks the file. Throws InvalidFile where it is no regular file, and what parse_safetensors() throws.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const FileTensors& tensors() const { return tensors_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const uint8_t* map_ = nullptr;
  size_t size_ = 0;
  FileTensors tensors_;
};

/// Whether convert takes it.
inline bool is_float(FileDType dtype) {
  return dtype == FileDType::F64 || dtype == FileDType::F32 || dtype == FileDType::F16 || dtype == FileDType::BF16;
}

/// Copies a tensor of F32, F16, BF16 or F64 into float32 or bfloat16, rounding to nearest.
void convert(const FileTensor& tensor, DType dtype, void* out);

/// Whether two tensors that is_float() takes have equal values (NaN equals itself).
bool same_values(const FileTensor& a, const FileTensor& b);

/// Lets go of a mapped tensor's pages, so that a file that has been read does not count as this process's memory. It
/// can still be read, from the disk.
void release(const FileTensor& tensor);

struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

/// Gives elements [begin, begin + count) of tensor `index`.
using TensorSource = std::function<void(size_t index, int64_t begin, int64_t count, float* out)>;

/// Writes a float32 or bfloat16 file (rounded to nearest): to `path`.tmp, synced, then renamed, so `path` is never
/// half-written. The source is asked for a bounded number of elements at a time, in order.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors, DType dtype,
                       const TensorSource& source, const CancelToken& cancel);

}  // namespace eepo
