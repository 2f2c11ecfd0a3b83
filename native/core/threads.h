// How many threads a parallel loop uses. OpenMP keeps this number per calling thread, so the one set from
// JavaScript's thread would not reach the thread that computes: it is kept here and applied there.
#pragma once

namespace eepo {

/// The number of threads in use: what set_num_threads() set, else OMP_NUM_THREADS, else the CPUs this process may
/// use (its affinity mask, and the CPU quota of its container).
int num_threads();

/// Sets it for every later job; n >= 1. Does not interrupt a running one.
void set_num_threads(int n);

/// Makes the calling thread's OpenMP and ATen loops use num_threads(). Cheap; a worker thread calls it before each job.
/// Throws OutOfMemory where the system does not let the process have so many threads.
void apply_num_threads();

}  // namespace eepo
