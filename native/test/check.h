// The few lines of test harness that the C++ tests need: one line printed per check, a count of failures.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

namespace eepo::test {

inline int failures = 0;

inline void check_true(const std::string& name, bool ok, const std::string& detail = "") {
  std::printf("%s %s%s%s\n", ok ? "ok  " : "FAIL", name.c_str(), detail.empty() ? "" : ": ", detail.c_str());
  std::fflush(stdout);
  failures += !ok;
}

/// Passes if value <= limit (a NaN fails).
inline void check_at_most(const std::string& name, double value, double limit) {
  char detail[96];
  std::snprintf(detail, sizeof detail, "%.3g (at most %.3g)", value, limit);
  check_true(name, value <= limit, detail);
}

/// The larger of two errors, where NaN is the largest of all.
inline double worse(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b); }

/// |got - want|; 0 if both are NaN or the same infinity, NaN if only one is.
inline double difference(double got, double want) {
  if (std::isnan(got) && std::isnan(want)) return 0;
  if (got == want) return 0;
  return std::fabs(got - want);
}

}  // namespace eepo::test
