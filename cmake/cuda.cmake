# The CUDA half: build/cuda/eepo_cuda.so, which the addon loads where a GPU is. Included by CMakeLists.txt.
#
# nvcc is called as a plain command, not as CMake's CUDA language. So any CMake does (older ones do not know C++20 for
# newer compilers, and try them with architectures they have dropped), and nvcc may come from a wheel, whose folders
# CMake's search does not expect. The kernels include nothing of libtorch, which keeps nvcc out of its headers.

set(EEPO_NVCC "" CACHE FILEPATH "nvcc")
set(EEPO_CUDA_INCLUDE "" CACHE STRING "Folders with cuda_runtime_api.h, crt/host_defines.h and cublas_v2.h")
set(EEPO_CUDA_LIBRARIES "" CACHE STRING "The libcudart and libcublas that this libtorch uses, by path")
set(EEPO_CUDA_ARCHITECTURES "80;86;89;90;100;120" CACHE STRING
  "Compute capabilities: machine code for each, and PTX of the last for GPUs to come")
set(EEPO_NVCC_FLAGS "" CACHE STRING "More flags for nvcc")
foreach(name EEPO_NVCC EEPO_CUDA_INCLUDE EEPO_CUDA_LIBRARIES EEPO_CUDA_ARCHITECTURES)
  if(NOT ${name})
    message(FATAL_ERROR "EEPO_CUDA needs ${name}; scripts/build-native.cjs --cuda finds and passes it")
  endif()
endforeach()

set(EEPO_CUDA_SOURCES
  native/cuda/built_against.cc
  native/cuda/ops.cc
  native/cuda/runtime_torch.cc
)
set(EEPO_CUDA_KERNELS
  native/kernels/adamw.cu
  native/kernels/ascend.cu
  native/kernels/attention.cu
  native/kernels/attention_backward.cu
  native/kernels/attention_decode.cu
  native/kernels/blocks.cu
  native/kernels/complementary_loss.cu
  native/kernels/linear_head.cu
  native/kernels/non_finite.cu
  native/kernels/rms_norm.cu
  native/kernels/sample.cu
  native/kernels/token_grad.cu
  native/kernels/token_stats.cu
)

# ---- the kernels: one object each, by nvcc -----------------------------------------------------------------------------
set(EEPO_GENCODE)
foreach(arch IN LISTS EEPO_CUDA_ARCHITECTURES)
  list(APPEND EEPO_GENCODE "--generate-code=arch=compute_${arch},code=sm_${arch}")
endforeach()
list(GET EEPO_CUDA_ARCHITECTURES -1 arch)
list(APPEND EEPO_GENCODE "--generate-code=arch=compute_${arch},code=compute_${arch}")
string(REPLACE ";" " " EEPO_ARCHITECTURES "${EEPO_CUDA_ARCHITECTURES}")
separate_arguments(EEPO_MORE_NVCC_FLAGS UNIX_COMMAND "${EEPO_NVCC_FLAGS}")

if(POLICY CMP0116)
  cmake_policy(SET CMP0116 NEW) # dependency files of custom commands under Ninja
endif()
set(EEPO_CUDA_OBJECTS)
foreach(kernel IN LISTS EEPO_CUDA_KERNELS)
  get_filename_component(name "${kernel}" NAME_WE)
  set(object "${CMAKE_BINARY_DIR}/cuda/${name}.o")
  if(CMAKE_VERSION VERSION_LESS 3.20)
    file(GLOB_RECURSE dependencies "${CMAKE_SOURCE_DIR}/native/*.h" "${CMAKE_SOURCE_DIR}/native/*.cuh")
    set(dependencies DEPENDS ${dependencies})
  else()
    set(dependencies DEPFILE "${object}.d")
  endif()
  add_custom_command(
    OUTPUT "${object}"
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_BINARY_DIR}/cuda"
    COMMAND "${EEPO_NVCC}" -c "${CMAKE_SOURCE_DIR}/${kernel}" -o "${object}" -MD -MF "${object}.d" -MT "${object}"
      -ccbin "${CMAKE_CXX_COMPILER}" -std=c++20 -O3 -DNDEBUG -lineinfo --expt-relaxed-constexpr
      "-I${CMAKE_SOURCE_DIR}/native" -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra
      -Xfatbin=-compress-all # with line numbers in it the binary is six times larger otherwise
      ${EEPO_GENCODE} ${EEPO_MORE_NVCC_FLAGS}
    MAIN_DEPENDENCY "${CMAKE_SOURCE_DIR}/${kernel}"
    ${dependencies}
    COMMENT "Compiling CUDA kernels ${kernel}"
    VERBATIM
  )
  list(APPEND EEPO_CUDA_OBJECTS "${object}")
endforeach()

# ---- the half ----------------------------------------------------------------------------------------------------------
add_library(eepo_cuda MODULE native/device/interface.cc ${EEPO_CUDA_SOURCES} ${EEPO_CUDA_OBJECTS})
set_source_files_properties(${EEPO_CUDA_OBJECTS} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
target_include_directories(eepo_cuda PRIVATE native)
target_include_directories(eepo_cuda SYSTEM PRIVATE ${EEPO_TORCH_INCLUDE} ${EEPO_CUDA_INCLUDE})
target_compile_definitions(eepo_cuda PRIVATE
  EEPO_VERSION="${EEPO_VERSION}" EEPO_ARCHITECTURES="${EEPO_ARCHITECTURES}")
target_compile_options(eepo_cuda PRIVATE ${EEPO_WARNINGS})

# cuBLAS and the CUDA runtime are those that libtorch itself links: two of either in one process would be two sets of
# streams and handles. Libraries that those need in turn are looked up beside them.
set(EEPO_CUDA_LINK_PATHS)
foreach(library IN LISTS EEPO_CUDA_LIBRARIES)
  get_filename_component(folder "${library}" DIRECTORY)
  list(APPEND EEPO_CUDA_LINK_PATHS "-Wl,-rpath-link,${folder}")
endforeach()
list(REMOVE_DUPLICATES EEPO_CUDA_LINK_PATHS)
target_link_libraries(eepo_cuda PRIVATE
  "${EEPO_TORCH_LIB}/libtorch_cuda.so" "${EEPO_TORCH_LIB}/libc10_cuda.so"
  "${EEPO_TORCH_LIB}/libtorch_cpu.so" "${EEPO_TORCH_LIB}/libc10.so" ${EEPO_CUDA_LIBRARIES})
# Every symbol is resolved here and not by the first user. libtorch_cuda is needed even if only its registrations are.
target_link_options(eepo_cuda PRIVATE -Wl,--no-undefined -Wl,--no-as-needed ${EEPO_CUDA_LINK_PATHS})
set_target_properties(eepo_cuda PROPERTIES
  PREFIX "" SUFFIX ".so"
  BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH ""
  LIBRARY_OUTPUT_DIRECTORY "${EEPO_OUTPUT}/cuda"
)

# ---- the C++ tests of the kernels on the real GPU (scripts/gpu-check.sh); elsewhere they run on the emulator -----------
# Without libtorch: compute-sanitizer starts faster.
file(GLOB EEPO_CUDA_TESTS "${CMAKE_SOURCE_DIR}/native/test/cuda_*_test.cc")
if(EEPO_CUDA_TESTS)
  add_executable(eepo_cuda_kernels_test EXCLUDE_FROM_ALL
    ${EEPO_CUDA_TESTS} native/core/isa.cc ${EEPO_KERNEL_SOURCES} native/kernels/sample_reference.cc
    native/kernels/token_grad_reference.cc native/kernels/token_stats_reference.cc
    ${EEPO_ISA_OBJECTS} ${EEPO_CUDA_OBJECTS})
  # Custom commands belong to one target; this waits for the one that makes the objects.
  add_dependencies(eepo_cuda_kernels_test eepo_cuda)
  target_include_directories(eepo_cuda_kernels_test PRIVATE native)
  target_include_directories(eepo_cuda_kernels_test SYSTEM PRIVATE ${EEPO_CUDA_INCLUDE})
  target_compile_definitions(eepo_cuda_kernels_test PRIVATE $<$<BOOL:${EEPO_X86_64}>:EEPO_X86_64>)
  target_compile_options(eepo_cuda_kernels_test PRIVATE ${EEPO_WARNINGS} -fno-math-errno ${OpenMP_CXX_FLAGS})
  list(FILTER EEPO_CUDA_LIBRARIES INCLUDE REGEX "cudart")
  target_link_libraries(eepo_cuda_kernels_test PRIVATE ${EEPO_CUDA_LIBRARIES} ${OpenMP_CXX_LIBRARIES})
  get_filename_component(folder "${EEPO_CUDA_LIBRARIES}" DIRECTORY)
  set_target_properties(eepo_cuda_kernels_test PROPERTIES
    BUILD_RPATH "${folder}" RUNTIME_OUTPUT_DIRECTORY "${EEPO_OUTPUT}/cuda")
endif()
