#include "node/edge.h"

#include <dlfcn.h>

#include "core/error.h"
#include "node/channel.h"
#include "node/tensor.h"

namespace eepo::node {
namespace {

/// A worker_thread that ends closes the addons it loaded. Where no other thread has loaded this one, its code would
/// be unmapped under the device's thread, so the library is pinned for the life of the process.
void pin_library() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&pin_library), &info) == 0 || info.dli_fname == nullptr) return;
  dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

}  // namespace

EdgeData& edge_data(Napi::Env env) {
  auto* data = env.GetInstanceData<EdgeData>();
  check(data != nullptr, ErrorCode::Native, "register_edge() has not run in this environment");
  return *data;
}

void tag_object(Napi::Object object, const napi_type_tag& tag) {
  if (napi_type_tag_object(object.Env(), object, &tag) != napi_ok) throw Napi::Error::New(object.Env());
}

void register_edge(Napi::Env env, Napi::Object exports) {
  pin_library();
  auto* data = new EdgeData();
  env.SetInstanceData<EdgeData>(data);
  data->channel = Channel::open(env);
  register_tensor(env, exports);
  register_errors(env, exports);
}

}  // namespace eepo::node
