
# Copyright (C) the nginx-tun authors

# The door of the project: `make help` says what is behind it.


NGINX_SRC =
LWIP =
LWIP_DIR =
SANITIZE =
TESTS =
CONF =		examples/quickstart.conf
DESTDIR =

TOP :=		$(CURDIR)
BUILD :=	$(TOP)/build
MODULE :=	ngx_stream_tun_module.so

# lwIP: of the next Debian release, or of this one, or LWIP=, or LWIP_DIR=

LWIP_VERSIONS =	$(if $(LWIP),$(LWIP),2.2.1 2.1.3)

ifneq ($(LWIP_DIR),)
LWIP_SRC :=	$(abspath $(LWIP_DIR))
LWIP_TAG :=	$(subst /,-,$(LWIP_SRC))
$(if $(wildcard $(LWIP_SRC)/src/core/tcp.c),,				\
	$(error no lwIP source in "$(LWIP_DIR)"))
else
LWIP_SRC :=	$(BUILD)/lwip$(addprefix -,$(LWIP))
LWIP_TAG :=	$(LWIP)
endif

# one folder for each combination that was asked for

ifneq ($(NGINX_SRC),)
NGINX_VERSION := $(shell sed -n 's/^.define NGINX_VERSION *"\(.*\)"/\1/p' \
		$(NGINX_SRC)/src/core/nginx.h)
$(if $(NGINX_VERSION),,$(error no nginx source in "$(NGINX_SRC)"))
endif

FLAVOUR :=	nginx$(if $(NGINX_SRC),-$(NGINX_VERSION))
FLAVOUR :=	$(FLAVOUR)$(if $(LWIP_TAG),-lwip$(LWIP_TAG))
FLAVOUR :=	$(FLAVOUR)$(if $(SANITIZE),-sanitize)

OBJS :=		$(BUILD)/$(FLAVOUR)
TARGET :=	$(if $(filter nginx,$(FLAVOUR)),$(BUILD),$(OBJS))/$(MODULE)

# a source tree is configured through links to it, as configure writes there

ifneq ($(NGINX_SRC),)
NGINX_FROM :=	$(abspath $(NGINX_SRC))
NGINX_DIR :=	$(OBJS)/source
NGINX :=	$(OBJS)/nginx
else
NGINX_FROM :=	/usr/share/nginx/src
NGINX_DIR :=	$(NGINX_FROM)
NGINX :=	$(if $(SANITIZE),$(TOP)/misc/nginx-sanitized,/usr/sbin/nginx)
endif

SOURCES :=	config config.make					\
		$(wildcard ngx_tun_module/*.[ch] stack/*.[ch] dns/*.[ch]) \
		$(wildcard stack/lwip_port/*.* stack/lwip_port/arch/*.h)

JOBS :=		-j$(shell nproc)

export TUN_MODULE := $(TARGET)

# to nginx itself, NGINX is a list of sockets: it is exported where it differs

ifneq ($(NGINX_SRC)$(SANITIZE),)
export NGINX
endif

# what nginx leaves to exit() is no leak, and every module has ngx_modules

export ASAN_OPTIONS ?=	detect_leaks=0:detect_odr_violation=0
export UBSAN_OPTIONS ?=	print_stacktrace=1


.PHONY: all build run demo test check soak bench chart install uninstall clean help

all: build

build: $(TARGET)			## build/ngx_stream_tun_module.so (default)


# the module

$(TARGET): $(OBJS)/Makefile $(SOURCES)
	@$(MAKE) -s $(JOBS) -C $(NGINX_DIR) -f $(OBJS)/Makefile modules
ifneq ($(NGINX_SRC),)
	@$(MAKE) -s $(JOBS) -C $(NGINX_DIR) -f $(OBJS)/Makefile binary
endif
	@[ $@ = $(OBJS)/$(MODULE) ] || cp $(OBJS)/$(MODULE) $@
	@touch $@
	@echo "$@ is ready"

$(OBJS)/Makefile: config config.make misc/configure $(OBJS)/configured \
		| $(LWIP_SRC)/src/core/tcp.c
	@echo "configuring for nginx in $(NGINX_FROM)"
ifneq ($(NGINX_SRC),)
	@rm -rf $(NGINX_DIR)
	@cp -rs $(NGINX_FROM) $(NGINX_DIR)
	@rm -f $(NGINX_DIR)/Makefile
endif
	@LWIP_DIR=$(LWIP_SRC) SANITIZE=$(SANITIZE)				\
		misc/configure $(NGINX_DIR) $(TOP) $(OBJS)
	@touch $@

# another nginx than the one configured for means to configure anew, and so
# does another list of sources

$(OBJS)/configured: FORCE | $(BUILD)/packages
	@mkdir -p $(@D)
	@misc/version $(NGINX_FROM) > $@.new
	@echo $(filter %.c,$(SOURCES)) $(LWIP_SRC) >> $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(BUILD)/packages: misc/packages
	@misc/packages build
	@mkdir -p $(@D)
	@touch $@

$(BUILD)/lwip/src/core/tcp.c: | $(BUILD)/packages
	@for v in $(LWIP_VERSIONS); do						\
		misc/source $(BUILD) lwip $$v					\
		&& ln -sfn lwip-$$v $(BUILD)/lwip && exit 0;			\
	done; exit 1

$(BUILD)/lwip-%/src/core/tcp.c: | $(BUILD)/packages
	@misc/source $(BUILD) lwip $*

.PHONY: FORCE
FORCE:


# what one does with it

run: build				## start a gateway in the foreground
	@misc/packages run
	@misc/run $(CONF)

demo: build				## a client, a gateway and a server at work
	@misc/packages run
	@misc/demo

test: build				## all tests
	@misc/packages test
	@prove --jobs 3 -I t/lib $(if $(TESTS),$(TESTS),t)

check: build				## style and unit tests, quickly
	@misc/packages test
	@prove -I t/lib t/style.t t/unit.t

soak: build				## ten minutes of all at once, watched
	@misc/packages test
	@SOAK_SECONDS=$(or $(SOAK_SECONDS),600) perl -I t/lib t/soak.t
	@TUN_RELOADS=60 perl -I t/lib t/reload_load.t

bench: build				## speed, against nginx behind nft REDIRECT
	@misc/packages bench
	@LWIP_LIB=$(OBJS)/addon/lwip/liblwip.a t/bench/bench
	@t/bench/chart

chart:					## t/bench/speed.svg of what bench measured
	@t/bench/chart $(BUILD)/bench.jsonl t/bench/speed.svg

install: build				## put the module into Debian's nginx
	@DESTDIR="$(DESTDIR)" misc/install $(TARGET)

uninstall:				## take it out again
	@DESTDIR="$(DESTDIR)" misc/install --remove

clean:					## remove build/
	rm -rf $(BUILD)

help:					## these lines
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' Makefile | expand -t 12
	@echo
	@echo "NGINX_SRC=dir  build for an nginx source tree, and its binary"
	@echo "LWIP=version   lwIP 2.2.1 or 2.1.3; LWIP_DIR=dir another source"
	@echo "SANITIZE=1     with ASan and UBSan, lwIP's asserts are counted"
	@echo "ROWS=regex     figures of make bench; ROUNDS=5 of each"
	@echo "SOAK_SECONDS=n of make soak"
	@echo "TESTS=t/x.t    of make test; CONF=file of make run"
