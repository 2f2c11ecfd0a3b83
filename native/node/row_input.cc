#include "node/row_input.h"

#include <utility>

#include "node/arguments.h"

namespace eepo::node {

Input input_argument(Napi::Value logits, Napi::Value hidden, Napi::Value head) {
  Input input;
  if (!logits.IsUndefined() && !logits.IsNull()) {
    input.logits = unwrap_tensor(logits, "logits");
    require_rank(input.logits, "logits", 2, "[rows, vocab]");
    require_real(input.logits, "logits");
    input.rows = input.logits.size(0);
    input.cols = input.logits.size(1);
  } else {
    input.hidden = unwrap_tensor(hidden, "hidden");
    input.head = unwrap_tensor(head, "head");
    require_rank(input.hidden, "hidden", 2, "[rows, dim]");
    require_rank(input.head, "head", 2, "[vocab, dim]");
    require_real(input.hidden, "hidden");
    require_real(input.head, "head");
    check(input.hidden.size(1) == input.head.size(1), ErrorCode::InvalidArgument, "hidden ",
          shape_string(input.hidden.sizes()), " and head ", shape_string(input.head.sizes()),
          " must have the same second size");
    require_same_device(input.hidden, "hidden", input.head, "head");
    input.rows = input.hidden.size(0);
    input.cols = input.head.size(0);
  }
  check(input.rows == 0 || input.cols > 0, ErrorCode::InvalidArgument, input.fused() ? "head" : "logits",
        " must have at least one vocabulary entry");
  return input;
}

at::Tensor targets_argument(Napi::Value value, int64_t rows) {
  at::Tensor targets = unwrap_tensor(value, "targets");
  require_dtype(targets, "targets", DType::Int64);
  require_length(targets, "targets", rows, "row");
  return targets;
}

at::Tensor coefficients_argument(Napi::Value value, const char* name, int64_t rows) {
  at::Tensor coefficients = unwrap_optional_tensor(value, name);
  if (!coefficients.defined()) return coefficients;
  require_dtype(coefficients, name, DType::Float32);
  require_length(coefficients, name, rows, "row");
  return coefficients;
}

at::Tensor with_dense_rows(const at::Tensor& matrix) {
  const bool dense = matrix.size(1) <= 1 || matrix.stride(1) == 1;
  const bool forward = matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1);
  return dense && forward ? matrix : matrix.contiguous();
}

int64_t row_stride(const at::Tensor& matrix) { return matrix.size(0) <= 1 ? matrix.size(1) : matrix.stride(0); }

void* row_pointer(const at::Tensor& matrix, int64_t row) {
  return static_cast<char*>(matrix.data_ptr()) + row * row_stride(matrix) * matrix.element_size();
}

Head::Head(Ops& ops, const Input& input) : hidden(input.hidden.contiguous()), head(input.head.contiguous()), view{} {
  const bool as_is = ops.device() == Device::Cuda && hidden.scalar_type() == head.scalar_type();
  if (!as_is && hidden.scalar_type() != at::kFloat) hidden = ops.convert(hidden, DType::Float32);
  if (!as_is && head.scalar_type() != at::kFloat) head = ops.convert(head, DType::Float32);
  view = {hidden.const_data_ptr(), head.const_data_ptr(), dtype_of(hidden, "hidden"),
          hidden.size(0),          hidden.size(1),        head.size(0)};
}

Napi::Value wrap_tensors(Napi::Env env, Tensors tensors) {
  Napi::Array result = Napi::Array::New(env, tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) result.Set(i, wrap_tensor(env, std::move(tensors[i])));
  return result;
}

}  // namespace eepo::node
