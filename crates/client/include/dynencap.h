/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * dynencap: the exit of a connection, chosen by its application with setsockopt(2).
 * Values and errnos: docs/datapath.md, section 1. C99 and C++; nothing to link.
 *
 *     struct in6_addr gateway;
 *     inet_pton(AF_INET6, "2001:db8::1", &gateway);
 *     if (dynencap_set_gateway6(fd, &gateway) < 0)
 *         perror("dynencap");              ENOPROTOOPT: not installed here
 *
 * Every function returns 0, or -1 with errno set:
 *   ENOPROTOOPT   no program answers for the cgroup of this process
 *   EPERM         the policy of this process's cgroup does not allow it
 *   EINVAL        a value that cannot be an exit
 *   EAFNOSUPPORT  not an IP socket
 *   EOPNOTSUPP    a raw or MPTCP socket
 *   ENOMEM        no memory for the socket's exit
 */
#ifndef DYNENCAP_H
#define DYNENCAP_H

#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Level of the options. */
#define SOL_DYNENCAP 0xE9CA

/* 16 bytes: an IPv6 address; 4 bytes: an IPv4 address; 0 bytes: no exit. */
#define ENCAP_GW 1
/* Source port (0: from the flow's hash) and destination port, 2 bytes each, network order;
 * then 0 to 32 bytes of custom header. 0 bytes: IP-in-IP. */
#define ENCAP_UDP 2
/* uint32_t in host byte order, of the bits below: what replies take over from the packets that
 * came in. On a listener: for the connections that it accepts. 0 bytes: the cgroup's default. */
#define ENCAP_REFLECT 3
/* The outer header by which they came. */
#define DYNENCAP_REFLECT_PATH 1u
/* The DSCP of the SYN. */
#define DYNENCAP_REFLECT_DSCP 2u
/* The mark of the SYN, dynencap's part excepted. */
#define DYNENCAP_REFLECT_MARK 4u
/* Read only: struct dynencap_info. */
#define ENCAP_INFO 4

#define DYNENCAP_GATEWAY_LEN 16
#define DYNENCAP_GATEWAY4_LEN 4
#define DYNENCAP_PORTS_LEN 4
#define DYNENCAP_MAX_HEADER_LEN 32

/* The part of SO_MARK that is dynencap's. */
#define DYNENCAP_MARK_MASK 0x00ff0000u

/* Value of ENCAP_INFO, in host byte order. */
struct dynencap_info {
    uint64_t encapsulated; /* frames; a super-packet counts once */
    uint64_t dropped;      /* frames */
    uint32_t last_drop;    /* code of the last drop's reason; 0: none yet */
    uint32_t overhead;     /* bytes of outer headers; 0 without an exit */
    uint32_t mtu;          /* the longest inner packet in bytes that fits; 0 without an exit */
    uint32_t reserved;     /* 0 */
};

/* The next packet leaves through this gateway. */
static inline int dynencap_set_gateway6(int fd, const struct in6_addr *gateway)
{
    return setsockopt(fd, SOL_DYNENCAP, ENCAP_GW, gateway, DYNENCAP_GATEWAY_LEN);
}

/* The same, IPv4. */
static inline int dynencap_set_gateway4(int fd, const struct in_addr *gateway)
{
    return setsockopt(fd, SOL_DYNENCAP, ENCAP_GW, gateway, DYNENCAP_GATEWAY4_LEN);
}

/* The next packet leaves without an exit. */
static inline int dynencap_clear_gateway(int fd)
{
    return setsockopt(fd, SOL_DYNENCAP, ENCAP_GW, "", 0);
}

/* Ports in host byte order. Set before the gateway, no packet leaves without UDP. */
static inline int dynencap_set_udp(int fd, uint16_t source_port, uint16_t destination_port,
                                   const void *header, size_t header_len)
{
    unsigned char value[DYNENCAP_PORTS_LEN + DYNENCAP_MAX_HEADER_LEN];

    if (header_len > DYNENCAP_MAX_HEADER_LEN) {
        errno = EINVAL;
        return -1;
    }
    value[0] = (unsigned char)(source_port >> 8);
    value[1] = (unsigned char)(source_port & 0xff);
    value[2] = (unsigned char)(destination_port >> 8);
    value[3] = (unsigned char)(destination_port & 0xff);
    if (header_len > 0)
        memcpy(value + DYNENCAP_PORTS_LEN, header, header_len);
    return setsockopt(fd, SOL_DYNENCAP, ENCAP_UDP, value,
                      (socklen_t)(DYNENCAP_PORTS_LEN + header_len));
}

/* Back to IP-in-IP. */
static inline int dynencap_clear_udp(int fd)
{
    return setsockopt(fd, SOL_DYNENCAP, ENCAP_UDP, "", 0);
}

/* What is reflected from now on: DYNENCAP_REFLECT_... or 0. */
static inline int dynencap_set_reflect(int fd, uint32_t what)
{
    return setsockopt(fd, SOL_DYNENCAP, ENCAP_REFLECT, &what, sizeof(what));
}

/* Back to the cgroup's default. */
static inline int dynencap_clear_reflect(int fd)
{
    return setsockopt(fd, SOL_DYNENCAP, ENCAP_REFLECT, "", 0);
}

/* What is reflected: the socket's own, else the cgroup's default. */
static inline int dynencap_get_reflect(int fd, uint32_t *what)
{
    socklen_t length = sizeof(*what);

    *what = 0;
    return getsockopt(fd, SOL_DYNENCAP, ENCAP_REFLECT, what, &length);
}

/* Counters of the socket, and what its exit costs. */
static inline int dynencap_get_info(int fd, struct dynencap_info *info)
{
    socklen_t length = sizeof(*info);

    memset(info, 0, sizeof(*info));
    return getsockopt(fd, SOL_DYNENCAP, ENCAP_INFO, info, &length);
}

#ifdef __cplusplus
}
#endif

#endif /* DYNENCAP_H */
