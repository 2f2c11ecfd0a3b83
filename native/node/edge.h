// What one JavaScript environment (the main thread or a worker_thread) keeps for this addon, and the functions that
// the addon's table calls to register the N-API edge.
#pragma once

#include <napi.h>

#include <memory>
#include <string>
#include <unordered_map>

namespace eepo::node {

class Channel;        // async.cc: the way back from the device's thread
class StorageLedger;  // tensor.cc: external memory, counted once per storage

struct EdgeData {
  std::shared_ptr<Channel> channel;
  std::shared_ptr<StorageLedger> ledger;
  /// Constructors of the ObjectWrap classes of this environment, by class name.
  std::unordered_map<std::string, Napi::FunctionReference> constructors;
};

/// The data of this environment. There is one addon instance per environment; nothing here is static.
EdgeData& edge_data(Napi::Env env);

/// Marks an object of ours. Throws where that cannot be: in a worker thread that is being terminated, constructors run
/// while every call into JavaScript fails, and an object without its tag would be taken for a stranger's.
void tag_object(Napi::Object object, const napi_type_tag& tag);

/// Sets up the environment (instance data, the channel for results, the Tensor class). Call it first.
void register_edge(Napi::Env env, Napi::Object exports);

/// raise(), for the tests of the error translation; called by register_edge().
void register_errors(Napi::Env env, Napi::Object exports);

/// The five kernels of lib/kernels.ts.
void register_kernels(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
