
# liblwip.a: what the module needs of lwIP's core, and ngx_tun_lwip.c.
#
#   STACK     the folder stack/
#   LWIP_DIR  lwIP's source
#   OUT       where the library goes

CORE =		$(LWIP_DIR)/src/core

SRCS =		def inet_chksum init ip mem memp netif pbuf tcp tcp_in	\
		tcp_out timeouts					\
		ipv4/icmp ipv4/ip4 ipv4/ip4_addr			\
		ipv6/icmp6 ipv6/ip6 ipv6/ip6_addr ipv6/nd6

OBJS =		$(patsubst %,$(OUT)/core/%.o,$(SRCS)) $(OUT)/ngx_tun_lwip.o

PORT =		$(STACK)/lwip_port
DEPS =		$(PORT)/lwipopts.h $(PORT)/ngx_tun_lwip_hooks.h		\
		$(PORT)/arch/cc.h $(PORT)/lwip.mk

INCS =		-I $(PORT) -I $(STACK) -I $(LWIP_DIR)/src/include

WARN =		-W -Wall -Wpointer-arith -Wno-unused-parameter -Werror


$(OUT)/liblwip.a: $(OBJS)
	rm -f $@
	$(AR) rcs $@ $^

$(OUT)/ngx_tun_lwip.o: $(STACK)/ngx_tun_lwip.c $(STACK)/ngx_tun_lwip.h $(DEPS)
	@mkdir -p $(@D)
	$(CC) -c -O2 -g $(CFLAGS) $(WARN) $(INCS) -o $@ $<

$(OUT)/core/%.o: $(CORE)/%.c $(DEPS)
	@mkdir -p $(@D)
	$(CC) -c -O2 -g $(CFLAGS) -w -fno-strict-aliasing $(INCS) -o $@ $<
