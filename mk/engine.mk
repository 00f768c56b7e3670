# engine.mk
#	The half of the build that knows no PostgreSQL: one static library a room,
#	dfx-engine, and the test programs.  Usable alone: make -f mk/engine.mk unit
#
#	SANITIZE=1 builds everything into build/asan with ASan and UBSan.
#	build/test/dfx-engine is the engine with the fault triggers of the TAP
#	tests compiled in (DFX_TEST_TRIGGERS); it is never installed.

.DEFAULT_GOAL := all

ENGINE_CC ?= cc
ENGINE_OPT ?= -O2 -g
BUILD := build
ifdef SANITIZE
BUILD := build/asan
ENGINE_SAN = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif

ENGINE_CFLAGS = -std=c11 -D_GNU_SOURCE -fPIC -pthread $(ENGINE_OPT) $(ENGINE_SAN) -Isrc -I. \
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings \
	-Wvla -Wno-missing-field-initializers
ENGINE_LDFLAGS = $(ENGINE_SAN) -pthread -Wl,-z,relro,-z,now
# libdeflate makes common PNGs faster; it is used where its header is found, unless LIBDEFLATE=0.
ifneq ($(LIBDEFLATE),0)
ifneq ($(shell echo '\#include <libdeflate.h>' | $(ENGINE_CC) -E - >/dev/null 2>&1 && echo 1),)
HAVE_LIBDEFLATE := 1
endif
endif
ENGINE_LIBS = $(if $(HAVE_LIBDEFLATE),-ldeflate) -ldnnl -lgomp -ljpeg -lpng -lz -ldl -lm

room = $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard $(1)/*.c))
BASE_O := $(call room,src/base)
IMAGE_O := $(call room,src/image)
NN_O := $(call room,src/nn)
CPU_O := $(call room,src/cpu)
TRAIN_O := $(call room,train)
ENGINE_O := $(call room,src/engine)
REF_O := $(call room,tests/ref)
ENGINE_TEST_O := $(patsubst $(BUILD)/obj/%,$(BUILD)/trig/%,$(ENGINE_O))
LIB_O := $(BASE_O) $(IMAGE_O) $(NN_O) $(CPU_O) $(TRAIN_O)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -MMD -MP -c -o $@ $<
# Loops over bytes, which gcc's -O2 leaves scalar where it does not know their length.
$(BUILD)/obj/src/image/filter.o: ENGINE_OPT += -O3
$(BUILD)/obj/src/image/png_whole.o: ENGINE_CFLAGS += $(if $(HAVE_LIBDEFLATE),-DDFX_LIBDEFLATE)
$(BUILD)/obj/src/image/png_unfilter.o: ENGINE_OPT += -O3
$(BUILD)/trig/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -DDFX_TEST_TRIGGERS -MMD -MP -c -o $@ $<

# dfx_cuda.so takes src/base and src/nn from the program: one log, one op table.
ENGINE_EXPORT = -Wl,--export-dynamic-symbol='dfx_*'

$(BUILD)/dfx-engine: $(ENGINE_O) $(LIB_O)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) $(ENGINE_EXPORT) -o $@ $^ $(ENGINE_LIBS)
# The engine with triggers also knows a network that is small enough to train in a test.
TEST_NN_O := $(BUILD)/trig/src/nn/backbone.o
$(BUILD)/test/dfx-engine: $(ENGINE_TEST_O) $(TEST_NN_O) $(filter-out $(BUILD)/obj/src/nn/backbone.o,$(LIB_O))
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) $(ENGINE_EXPORT) -o $@ $^ $(ENGINE_LIBS)

# A training engine that trains nothing and, on request, keeps to no protocol.
$(BUILD)/test/fake-train: $(BUILD)/obj/tests/tools/fake_train.o $(BASE_O)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) -o $@ $^ -lm
# A wall clock that a test can set, for LD_PRELOAD.
$(BUILD)/test/fake_clock.so: $(BUILD)/obj/tests/tools/fake_clock.o
	@mkdir -p $(@D)
	$(ENGINE_CC) -shared $(ENGINE_LDFLAGS) -o $@ $^

# Test programs: tests/unit needs base, image, nn and the oracle; tests/backend also src/cpu;
# tests/fuzz holds the stand-alone mutation drivers.
UNIT_T := $(patsubst tests/%.c,$(BUILD)/t/%.t,$(wildcard tests/unit/test_*.c))
BACKEND_T := $(patsubst tests/%.c,$(BUILD)/t/%.t,$(wildcard tests/backend/test_*.c))
FUZZ_T := $(patsubst tests/%.c,$(BUILD)/t/%.t,$(wildcard tests/fuzz/test_*.c))
BENCH_P := $(patsubst tests/%.c,$(BUILD)/t/%,$(wildcard tests/bench/bench_*.c))

$(BUILD)/t/%.t: $(BUILD)/obj/tests/%.o $(LIB_O) $(REF_O)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) -o $@ $^ $(ENGINE_LIBS)
# Tests of whole training runs link the small network too.
$(BUILD)/t/backend/test_train_%.t: $(BUILD)/obj/tests/backend/test_train_%.o $(TEST_NN_O) \
		$(filter-out $(BUILD)/obj/src/nn/backbone.o,$(LIB_O)) $(REF_O)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) -o $@ $^ $(ENGINE_LIBS)
# These run the engine with the fault triggers; order-only, for they do not link it.
$(filter $(BUILD)/t/backend/test_ring_% $(BUILD)/t/backend/test_train_%,$(BACKEND_T)): | $(BUILD)/test/dfx-engine
$(BUILD)/t/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIB_O) $(REF_O)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_LDFLAGS) -o $@ $^ $(ENGINE_LIBS)

include mk/cuda.mk

unit: $(UNIT_T)
	prove -e '' $(UNIT_T)
backend: $(BACKEND_T)
	prove -e '' $(BACKEND_T)
fuzz: $(FUZZ_T)
	prove -e '' $(FUZZ_T)
# Measuring programs too, so that what they call cannot change unnoticed.
test-programs: $(UNIT_T) $(BACKEND_T) $(FUZZ_T) $(BENCH_P) $(CUDA_T) $(GPU_T) $(GPU_P) $(CUDA_SO) $(BUILD)/dfx-engine $(BUILD)/test/dfx-engine $(BUILD)/test/fake-train $(BUILD)/test/fake_clock.so

# Golden files are committed; remaking them needs Debian's python3-torch, python3-torchvision, python3-pil and python3-opencv.
golden:
	for script in $(sort $(wildcard tests/golden/make_*.py)); do /usr/bin/python3 $$script || exit 1; done
bench: $(BUILD)/dfx-engine $(BENCH_P)
	tests/bench/run.sh $(BENCH_JSON)
-include $(shell find $(BUILD)/obj $(BUILD)/trig -name '*.d' 2>/dev/null)

.PHONY: unit backend fuzz test-programs golden bench
.PRECIOUS: $(BUILD)/obj/%.o $(BUILD)/trig/%.o
