// theta' - theta, kept beside theta' where one step is added to another, or to what the last iteration left.
#include "train/model.h"

namespace eepo {

const Model::Displacement* Model::displacement_before(int64_t iteration) const {
  const Displacement* newest = nullptr;
  for (const Displacement& d : displacements_)
    if (d.iteration != kNoIteration && d.iteration < iteration && (!newest || d.iteration > newest->iteration))
      newest = &d;
  return newest;
}

Model::Displacement& Model::begin_displacement(const ForgetOptions& options) {
  const int64_t n = trained_size();
  const Displacement* last = displacement_before(options.iteration);
  Displacement& next = last == &displacements_[0] ? displacements_[1] : displacements_[0];
  next.iteration = kNoIteration;  // until it is whole
  next.zero = !last || last->zero;
  float* const values = next.values.reserve(ops_, n);
  if (next.zero)
    ops_.zero(values, n * static_cast<int64_t>(sizeof(float)));
  else  // x + (d - 1) x
    ops_.ascend({{last->values.data(), DType::Float32, last->values.data(), DType::Float32, values, DType::Float32, n}},
                options.memory - 1, Rounding::Nearest, 0);
  return next;
}

void Model::drop_memory(uint32_t iteration) {
  const Displacement* last = displacement_before(iteration);
  Displacement& next = last == &displacements_[0] ? displacements_[1] : displacements_[0];
  next.iteration = iteration;
  next.zero = true;
}

}  // namespace eepo
