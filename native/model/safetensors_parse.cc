// The header of a safetensors file: what the reference implementation refuses is refused, and two things more, keys
// that occur twice (it keeps the last) and sizes from 2^63 on.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/utf8.h"
#include "model/safetensors.h"

namespace eepo {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit

struct DTypeName {
  const char* name;
  FileDType dtype;
  int64_t bits;
};
// All of the format's, so that sizes are checked also where a tensor is not read.
constexpr DTypeName kDTypes[] = {
    {"F64", FileDType::F64, 64},      {"F32", FileDType::F32, 32},          {"F16", FileDType::F16, 16},
    {"BF16", FileDType::BF16, 16},    {"BOOL", FileDType::Other, 8},        {"U8", FileDType::Other, 8},
    {"I8", FileDType::Other, 8},      {"U16", FileDType::Other, 16},        {"I16", FileDType::Other, 16},
    {"U32", FileDType::Other, 32},    {"I32", FileDType::Other, 32},        {"U64", FileDType::Other, 64},
    {"I64", FileDType::Other, 64},    {"C64", FileDType::Other, 64},        {"F8_E5M2", FileDType::Other, 8},
    {"F8_E4M3", FileDType::Other, 8}, {"F8_E5M2FNUZ", FileDType::Other, 8}, {"F8_E4M3FNUZ", FileDType::Other, 8},
    {"F8_E8M0", FileDType::Other, 8}, {"F6_E2M3", FileDType::Other, 6},     {"F6_E3M2", FileDType::Other, 6},
    {"F4", FileDType::Other, 4}};

/// The entry of one tensor, whose errors name it.
class Entry {
 public:
  Entry(const std::string& source, const std::string& name, const Json& entry)
      : source_(source), name_(name), entry_(entry) {}

  FileTensor parse(std::string_view data) const {
    if (entry_.kind != Json::Kind::Object) bad("its header entry is not an object");
    FileTensor tensor;
    const int64_t bits = dtype(tensor);
    shape(tensor);
    const auto [begin, end] = offsets(data.size());
    tensor.bytes = end - begin;
    int64_t expected = 0;
    if (__builtin_mul_overflow(tensor.elements, bits, &expected)) bad("shape overflows: 2^63 bits or more");
    if (expected % 8 != 0) bad(tensor.elements, " elements of dtype ", tensor.dtype_name, " are no whole bytes");
    if (expected / 8 != tensor.bytes)
      bad("dtype ", tensor.dtype_name, " and its shape need ", expected / 8, " bytes, data_offsets span ",
          tensor.bytes);
    tensor.data = reinterpret_cast<const uint8_t*>(data.data()) + begin;
    return tensor;
  }

 private:
  template <class... Parts>
  [[noreturn]] void bad(const Parts&... what) const {
    fail(ErrorCode::InvalidFile, source_, ": tensor ", printable(name_), ": ", what...);
  }

  const Json& member(const char* key, Json::Kind kind, const char* kind_name) const {
    const Json* value = entry_.find(key);
    if (!value) bad(key, " is missing");
    if (value->kind != kind) bad(key, " is not ", kind_name);
    return *value;
  }

  /// Returns the bits of an element.
  int64_t dtype(FileTensor& tensor) const {
    const std::string& name = member("dtype", Json::Kind::String, "a text").string;
    const auto* known = std::ranges::find_if(kDTypes, [&](const DTypeName& type) { return name == type.name; });
    if (known == std::end(kDTypes)) bad("dtype ", printable(name), " is none of the safetensors format");
    tensor.dtype = known->dtype;
    tensor.dtype_name = name;
    return known->bits;
  }

  void shape(FileTensor& tensor) const {
    tensor.elements = 1;
    for (const Json& size : member("shape", Json::Kind::Array, "a list").array) {
      if (size.kind != Json::Kind::Integer || size.integer < 0)
        bad("shape has an entry that is no size (an integer from 0 to 2^63 - 1)");
      if (__builtin_mul_overflow(tensor.elements, size.integer, &tensor.elements))
        bad("shape overflows: 2^63 elements or more");
      tensor.shape.push_back(size.integer);
    }
  }

  std::pair<int64_t, int64_t> offsets(uint64_t data_size) const {
    const std::vector<Json>& pair = member("data_offsets", Json::Kind::Array, "a list").array;
    if (pair.size() != 2) bad("data_offsets are not two numbers but ", pair.size());
    for (const Json& offset : pair)
      if (offset.kind != Json::Kind::Integer || offset.integer < 0)
        bad("data_offsets has an entry that is no offset (an integer from 0 to 2^63 - 1)");
    const int64_t begin = pair[0].integer, end = pair[1].integer;
    if (end < begin) bad("data_offsets [", begin, ", ", end, "] end before they begin");
    if (static_cast<uint64_t>(end) > data_size)
      bad("data_offsets [", begin, ", ", end, "] lie outside the file's ", data_size,
          " bytes of data (it may be truncated: download it again)");
    return {begin, end};
  }

  const std::string& source_;
  const std::string& name_;
  const Json& entry_;
};

void check_metadata(const Json& metadata, const std::string& source) {
  if (metadata.kind == Json::Kind::Null) return;
  check(metadata.kind == Json::Kind::Object, ErrorCode::InvalidFile, source, ": __metadata__ is not an object");
  for (const auto& [name, value] : metadata.object)
    check(value.kind == Json::Kind::String, ErrorCode::InvalidFile, source, ": __metadata__: ", printable(name),
          " is not a text");
}

/// Every byte of the data belongs to one tensor.
void check_cover(const FileTensors& tensors, std::string_view data, const std::string& source) {
  using Named = FileTensors::value_type;
  std::vector<const Named*> order;
  order.reserve(tensors.size());
  for (const Named& tensor : tensors) order.push_back(&tensor);
  // an empty tensor before one that begins where it lies
  std::ranges::sort(order, {}, [](const Named* t) { return std::pair(t->second.data, t->second.bytes); });
  const Named* before = nullptr;
  int64_t end = 0;
  for (const Named* tensor : order) {
    const auto& [name, place] = *tensor;
    const int64_t begin = place.data - reinterpret_cast<const uint8_t*>(data.data());
    if (begin < end)
      fail(ErrorCode::InvalidFile, source, ": tensor ", printable(name), ": its data begin at byte ", begin,
           " and overlap tensor ", printable(before->first), ", which ends at ", end);
    check(begin == end, ErrorCode::InvalidFile, source, ": tensor ", printable(name), ": its data begin at byte ",
          begin, " and leave a hole of ", begin - end, " bytes before them");
    end = begin + place.bytes;
    before = tensor;
  }
  const uint64_t left = data.size() - static_cast<uint64_t>(end);
  check(left == 0, ErrorCode::InvalidFile, source, ": ", left, " bytes after the last tensor",
        before ? " (" + printable(before->first) + ")" : std::string());
}

}  // namespace

FileTensors parse_safetensors(std::string_view file, const std::string& source) {
  check(file.size() >= kLengthBytes, ErrorCode::InvalidFile, source, ": is too short for a safetensors file (",
        file.size(), " bytes)");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  check(length <= kMaxHeader, ErrorCode::InvalidFile, source, ": header length ", length, " is more than ", kMaxHeader,
        " bytes, the format's limit (not a safetensors file?)");
  check(length <= file.size() - kLengthBytes, ErrorCode::InvalidFile, source, ": header length ", length,
        " does not fit the file of ", file.size(), " bytes (not a safetensors file, or truncated)");
  check(length >= 2, ErrorCode::InvalidFile, source, ": header length ", length, " has no room for a JSON object");
  const Json header = parse_json(file.substr(kLengthBytes, length), source);
  check(header.kind == Json::Kind::Object, ErrorCode::InvalidFile, source, ": its header is not a JSON object");
  const std::string_view data = file.substr(kLengthBytes + length);
  FileTensors tensors;
  for (const auto& [name, entry] : header.object) {
    if (name == "__metadata__")
      check_metadata(entry, source);
    else
      tensors.emplace(name, Entry(source, name, entry).parse(data));
  }
  check_cover(tensors, data, source);
  return tensors;
}

}  // namespace eepo
