
# lwIP and the one file of ours that sees its headers, as a static library:
# its symbols stay inside the module, its include path outside of nginx

cat << END                                                    >> $NGX_MAKEFILE

$NGX_OBJS/ngx_stream_tun_module.so:	$NGX_OBJS/addon/lwip/liblwip.a

$NGX_OBJS/addon/lwip/liblwip.a:	\\
	$ngx_addon_dir/stack/ngx_tun_lwip.c	\\
	$ngx_addon_dir/stack/ngx_tun_lwip.h	\\
	$ngx_addon_dir/stack/lwip_port/lwip.mk	\\
	$ngx_addon_dir/stack/lwip_port/lwipopts.h	\\
	$ngx_addon_dir/stack/lwip_port/ngx_tun_lwip_hooks.h	\\
	$ngx_addon_dir/stack/lwip_port/arch/cc.h
	\$(MAKE) -f $ngx_addon_dir/stack/lwip_port/lwip.mk	\\
		STACK=$ngx_addon_dir/stack	\\
		LWIP_DIR=$NGX_TUN_LWIP_DIR	\\
		OUT=$NGX_OBJS/addon/lwip	\\
		CC="\$(CC)" CFLAGS="$NGX_CC_OPT -fPIC"

END
