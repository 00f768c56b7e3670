# cuda.mk
#	The CUDA backend: build/dfx_cuda.so; its tests, of which those of tests/gpu
#	need a GPU.
#	Part of engine.mk; empty where nvcc or cuDNN's headers are missing, or with
#	CUDA=0.
#
#	Nothing of NVIDIA's is linked but the CUDA runtime, statically: driver,
#	cuDNN and cuBLASLt are found at run time (cuda/load.c).  What the library
#	needs of src/base and src/nn it takes from the program that loads it.

NVCC ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
CUDNN_H := $(firstword $(wildcard $(CUDA_HOME)/include/cudnn.h /usr/include/cudnn.h /usr/include/*/cudnn.h))
ifneq ($(CUDA),0)
ifneq ($(and $(NVCC),$(CUDNN_H)),)
HAVE_CUDA := 1
endif
endif

ifdef HAVE_CUDA
# Sanitizers see the host's half in tests/cuda; the library itself is built once.
ifndef SANITIZE
CUDA_SO := $(BUILD)/dfx_cuda.so
GPU_T := $(patsubst tests/%.c,$(BUILD)/t/%.t,$(wildcard tests/gpu/test_*.c))
GPU_BENCH := $(patsubst tests/%.c,$(BUILD)/t/%,$(wildcard tests/gpu/bench_*.c))
GPU_P := $(BUILD)/t/gpu/deviceprop $(GPU_BENCH)
endif
CUDA_LIB := $(firstword $(wildcard $(CUDA_HOME)/lib64/libcudart_static.a $(CUDA_HOME)/lib/libcudart_static.a))
CUDA_INCLUDE := -isystem $(CUDA_HOME)/include

# Machine code for Ampere (and what is compatible with it) and Hopper; PTX for all later ones.
CUDA_ARCH ?= -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
	-gencode arch=compute_80,code=compute_80
CUDA_CXXFLAGS = -std=c++17 -I. -Isrc -Wall -Wextra -Wno-unknown-pragmas -fno-exceptions -fno-rtti \
	-fno-threadsafe-statics -fvisibility=hidden -fPIC
comma := ,
empty :=
space := $(empty) $(empty)

CUDA_O := $(call room,cuda) $(patsubst %.cu,$(BUILD)/obj/%.cu.o,$(wildcard cuda/*.cu))
# What the tests run on the host: all but the device itself, on the kernels' twins.
CUDA_GPU_ONLY := $(patsubst %,$(BUILD)/obj/cuda/%.o,backend rt_cuda launch.cu launch_train.cu)
CUDA_HOST_O := $(filter-out $(CUDA_GPU_ONLY),$(CUDA_O)) $(BUILD)/obj/tests/cuda/host_rt.o \
	$(patsubst %.cc,$(BUILD)/obj/%.cc.o,$(wildcard cuda/host/*.cc))

$(BUILD)/obj/cuda/%.o $(BUILD)/obj/tests/cuda/%.o: ENGINE_CFLAGS += $(CUDA_INCLUDE) -fvisibility=hidden
$(BUILD)/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) -O3 -Xcompiler $(subst $(space),$(comma),$(strip $(filter-out -std=% -I%,$(CUDA_CXXFLAGS)))) \
		$(filter -std=% -I%,$(CUDA_CXXFLAGS)) $(CUDA_ARCH) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(BUILD)/obj/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CUDA_CXXFLAGS) $(ENGINE_OPT) -O3 $(ENGINE_SAN) $(CUDA_INCLUDE) -MMD -MP -c -o $@ $<

$(BUILD)/dfx_cuda.so: $(CUDA_O)
	$(ENGINE_CC) -shared $(ENGINE_LDFLAGS) -Wl,--exclude-libs,ALL -o $@ $^ $(CUDA_LIB) -ldl -lrt -lm

CUDA_T := $(patsubst tests/%.c,$(BUILD)/t/%.t,$(wildcard tests/cuda/test_*.c))
$(filter-out %/test_cuda_engine.t,$(CUDA_T)): $(BUILD)/t/cuda/%.t: $(BUILD)/obj/tests/cuda/%.o $(CUDA_HOST_O) $(LIB_O) $(REF_O)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) -o $@ $^ $(ENGINE_LIBS) -lstdc++

# An engine that takes the host's twin of the backend for a GPU, with the small network of tests.
$(BUILD)/t/cuda/test_cuda_engine.t: $(BUILD)/obj/tests/cuda/test_cuda_engine.o $(TEST_NN_O) \
		$(filter-out $(BUILD)/obj/src/nn/backbone.o,$(LIB_O)) | $(BUILD)/test/twin/dfx-engine
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) -o $@ $^ $(ENGINE_LIBS)
$(BUILD)/test/twin/dfx-engine: $(BUILD)/test/dfx-engine $(BUILD)/test/twin/dfx_cuda.so
	cp $< $@
$(BUILD)/test/twin/dfx_cuda.so: $(CUDA_HOST_O)
	@mkdir -p $(@D)
	$(ENGINE_CC) -shared $(ENGINE_LDFLAGS) -o $@ $^ -ldl -lstdc++ -lm

# Libraries that pretend, beside the tests that look for the real ones: something like a driver, with which cuDNN
# makes plans without a GPU (test_cuda_dnn.c), and a cuBLASLt of plain loops (test_cuda_lt.c).
$(BUILD)/t/cuda/test_cuda_dnn.t: | $(BUILD)/t/cuda/libcuda.so.1
$(BUILD)/t/cuda/test_cuda_lt.t: | $(BUILD)/t/cuda/libcublasLt.so.13
$(BUILD)/t/cuda/libcuda.so.1: tests/cuda/stub/driver.c
$(BUILD)/t/cuda/libcublasLt.so.13: tests/cuda/stub/cublaslt.c
$(BUILD)/t/cuda/libcuda.so.1 $(BUILD)/t/cuda/libcublasLt.so.13:
	@mkdir -p $(@D)
	$(ENGINE_CC) -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra $(CUDA_INCLUDE) -shared -fPIC -Wl,-soname,$(@F) -o $@ $<

# These need a GPU and skip themselves without one; they load the library as the engine does.
$(GPU_BENCH): $(BUILD)/t/gpu/%: $(BUILD)/obj/tests/gpu/%.o $(LIB_O) $(REF_O) | $(CUDA_SO)
$(GPU_T): $(BUILD)/t/gpu/%.t: $(BUILD)/obj/tests/gpu/%.o $(LIB_O) $(REF_O) | $(CUDA_SO)
$(GPU_T) $(GPU_BENCH):
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) $(ENGINE_EXPORT) -o $@ $(filter %.o,$^) $(ENGINE_LIBS)

$(BUILD)/t/gpu/deviceprop: tests/gpu/deviceprop.c
	@mkdir -p $(@D)
	$(ENGINE_CC) -std=c11 -O2 -Wall -Wextra $(CUDA_INCLUDE) -o $@ $< -ldl

cuda: $(CUDA_T) $(GPU_T)
	prove -e '' $(CUDA_T) $(GPU_T)
.PHONY: cuda
endif
