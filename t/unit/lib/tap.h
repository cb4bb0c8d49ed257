
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _TAP_H_INCLUDED_
#define _TAP_H_INCLUDED_


#include <stdarg.h>
#include <stdio.h>


static unsigned  tap_tests;


__attribute__((format(printf, 2, 3)))
static inline int
ok(int good, const char *fmt, ...)
{
    va_list  args;

    printf("%sok %u - ", good ? "" : "not ", ++tap_tests);

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);

    printf("\n");

    return good;
}


static inline int
done(void)
{
    printf("1..%u\n", tap_tests);

    return 0;
}


#endif /* _TAP_H_INCLUDED_ */
