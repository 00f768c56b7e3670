# deepfeaturex: in-database image screening.
#
#	make && make install	the extension and its engine, the PGXS way
#							(PG_CONFIG= and DESTDIR= are honoured)
#	make demo				sets everything up, classifies photographs in a private server
#	make check				sets everything up, runs every test
#	make golden				remakes the golden files (needs PyTorch, torchvision, Pillow, OpenCV)
#	make bench				the measurements of docs/PERFORMANCE.md (PARTS="net archive", BENCH_JSON=file)
#
# Two programs come out of one tree: deepfeaturex.so (src/pg and src/base, by
# PGXS) and dfx-engine (everything without PostgreSQL, by mk/engine.mk); and,
# where nvcc is found, dfx_cuda.so for the engine (mk/cuda.mk; CUDA=0 leaves it out).

EXTENSION = deepfeaturex
MODULE_big = deepfeaturex
OBJS = $(patsubst %.c,%.o,$(wildcard src/pg/*.c) $(wildcard src/base/*.c))
DATA = $(wildcard sql/*--*.sql)
REGRESS = $(sort $(patsubst sql/%.sql,%,$(filter-out $(wildcard sql/*--*.sql),$(wildcard sql/*.sql))))
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS = -std=gnu11 -Wno-declaration-after-statement -Wextra -Wno-unused-parameter \
	-Wno-missing-field-initializers -Wno-sign-compare
EXTRA_CLEAN = build

PG_CONFIG ?= pg_config

# `make demo`, `make check` and friends must run before anything is installed,
# pg_config included: their set-up is a script of its own.
ifneq ($(filter demo check setup,$(MAKECMDGOALS)),)

setup:
	tests/setup.sh
demo:
	tests/setup.sh build
	demo/demo.sh
check: setup
	tests/check.sh
.PHONY: setup demo check

else

# LLVM bitcode serves inlining of SQL-callable functions; ours wait for a
# network's answer, so the extra toolchain would buy nothing.
override with_llvm = no
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
srcdir ?= .

include mk/engine.mk

all: $(BUILD)/dfx-engine $(CUDA_SO)

install: install-engine
install-engine: $(BUILD)/dfx-engine $(CUDA_SO)
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $(BUILD)/dfx-engine '$(DESTDIR)$(pkglibdir)/dfx-engine'
	$(if $(CUDA_SO),$(INSTALL_SHLIB) $(CUDA_SO) '$(DESTDIR)$(pkglibdir)/dfx_cuda.so')
	$(MKDIR_P) '$(DESTDIR)$(datadir)/deepfeaturex'
	$(INSTALL_DATA) $(srcdir)/models/starter.safetensors '$(DESTDIR)$(datadir)/deepfeaturex/starter.safetensors'
uninstall: uninstall-engine
uninstall-engine:
	rm -f '$(DESTDIR)$(pkglibdir)/dfx-engine' '$(DESTDIR)$(pkglibdir)/dfx_cuda.so'
	rm -rf '$(DESTDIR)$(datadir)/deepfeaturex'

# PGXS writes no header dependencies of its own unless the server was built with --enable-depend.
$(OBJS): $(wildcard src/pg/*.h src/base/*.h src/engine/proto*.h)

.PHONY: install-engine uninstall-engine

endif
