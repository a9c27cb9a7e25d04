// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the TC egress program is held against: the same work written by hand in C, with nothing
// but the work. And what a bench needs around it: an empty program, a bare lookup, a sink that
// counts what arrived in the headers that were expected, a decapsulation. No structure is declared
// packed: the back end would read and write it byte by byte, at three times the instructions.
//
// peers.bpf.o is built from this file by `cargo xtask peers --rebuild`.

#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) value *name

static void *(*const map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static void *(*const storage_get)(void *map, void *sk, void *value,
				  __u64 flags) = (void *)BPF_FUNC_sk_storage_get;
static long (*const adjust_room)(struct __sk_buff *skb, __s32 len, __u32 mode,
				 __u64 flags) = (void *)BPF_FUNC_skb_adjust_room;
static long (*const change_head)(struct __sk_buff *skb, __u32 len,
				 __u64 flags) = (void *)BPF_FUNC_skb_change_head;

char gpl[] SEC("license") = "Dual MIT/GPL";

#define NEXT -1
#define SHOT 2
#define ETHERNET 14
#define IPV6 40
#define UDP 8
#define CUSTOM 8
#define IPV6_IN 41
#define UDP_PROTOCOL 17

#define BE16(x) __builtin_bswap16(x)
#define BE32(x) __builtin_bswap32(x)

struct ethernet {
	__u8 destination[6], source[6];
	__u16 type;
};

struct ipv6 {
	__u32 version_class_label;
	__u16 length;
	__u8 next_header, hop_limit;
	__u64 source[2], destination[2];
};

struct udp {
	__u16 source, destination, length, checksum;
};

// Where a socket's packets go: set by user space, by the socket's descriptor.
struct exit {
	__u64 gateway[2];
	__u64 header;
	__u16 source_port, destination_port; // network order
	__u32 reserved;
};

// A socket's: the programs without features use its first exit alone.
struct state {
	struct exit exits[2];
	__u32 generation, reserved; // the lowest bit says which exit
	__u64 checked; // for which generation, under which policies
	__u64 encapsulated;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct state);
} exits SEC(".maps");

// For the programs without a lookup.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exit);
} fixed SEC(".maps");

// Whether the packet's first bytes are there to be touched.
INLINE int has(struct __sk_buff *skb, struct ethernet *ethernet, __u32 len)
{
	return (void *)ethernet + len <= (void *)(long)skb->data_end;
}

INLINE struct ethernet *start(struct __sk_buff *skb)
{
	return (void *)(long)skb->data;
}

INLINE void move_ethernet(struct ethernet *to, const struct ethernet *from)
{
	__u64 first = *(__u64 *)from;
	__u32 second = *(__u32 *)((void *)from + 8);
	__u16 third = *(__u16 *)((void *)from + 12);
	*(__u64 *)to = first;
	*(__u32 *)((void *)to + 8) = second;
	*(__u16 *)((void *)to + 12) = third;
}

// What the outer header takes from the inner one.
struct inner {
	__u32 class;
	__u64 source[2];
};

INLINE int read_inner(struct __sk_buff *skb, struct inner *inner)
{
	struct ethernet *ethernet = start(skb);
	if (!has(skb, ethernet, ETHERNET + IPV6) || ethernet->type != BE16(0x86dd))
		return 0;
	struct ipv6 *ip = (void *)(ethernet + 1);
	inner->class = ip->version_class_label & BE32(0x0ff00000);
	inner->source[0] = ip->source[0];
	inner->source[1] = ip->source[1];
	return 1;
}

INLINE void write_outer(struct ipv6 *ip, const struct inner *inner, __u64 g0, __u64 g1,
			__u32 length, __u8 next_header)
{
	ip->version_class_label = BE32(0x60000000) | inner->class;
	ip->length = BE16((__u16)length);
	ip->next_header = next_header;
	ip->hop_limit = 64;
	ip->source[0] = inner->source[0];
	ip->source[1] = inner->source[1];
	ip->destination[0] = g0;
	ip->destination[1] = g1;
}

INLINE void write_udp(struct udp *udp, const struct exit *exit, __u32 length)
{
	udp->source = exit->source_port;
	udp->destination = exit->destination_port;
	udp->length = BE16((__u16)length);
	udp->checksum = 0;
	*(__u64 *)(udp + 1) = exit->header;
}

#define DECAP_L3_IPV6 (1 << 8) // newer than some headers
#define GSO_IP6 (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)
#define GSO_UDP                                                     \
	(GSO_IP6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(CUSTOM))

INLINE struct state *state_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	return sk ? storage_get(&exits, sk, 0, 0) : 0;
}

INLINE struct exit *exit_of(struct __sk_buff *skb)
{
	struct state *state = state_of(skb);
	return state ? &state->exits[0] : 0;
}

#include "features.h"

// The least that finds out that there is nothing to do.
SEC("classifier/lookup") int lookup(struct __sk_buff *skb)
{
	return exit_of(skb) ? SHOT : NEXT;
}

// The floor: no lookup, room by the cheapest helper. No GSO, so no use beyond this bench.
SEC("classifier/static_ip6") int static_ip6(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct exit *exit = map_lookup(&fixed, &zero);
	struct inner inner;
	if (!exit || !read_inner(skb, &inner))
		return SHOT;
	__u32 length = skb->len - ETHERNET;
	if (change_head(skb, IPV6, 0))
		return SHOT;
	struct ethernet *ethernet = start(skb);
	if (!has(skb, ethernet, ETHERNET + IPV6 + ETHERNET))
		return SHOT;
	move_ethernet(ethernet, (void *)ethernet + IPV6);
	write_outer((void *)(ethernet + 1), &inner, exit->gateway[0], exit->gateway[1], length,
		    IPV6_IN);
	return NEXT;
}

SEC("classifier/static_udp") int static_udp(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct exit *exit = map_lookup(&fixed, &zero);
	struct inner inner;
	if (!exit || !read_inner(skb, &inner))
		return SHOT;
	__u32 length = skb->len - ETHERNET + UDP + CUSTOM;
	if (change_head(skb, IPV6 + UDP + CUSTOM, 0))
		return SHOT;
	struct ethernet *ethernet = start(skb);
	if (!has(skb, ethernet, ETHERNET + IPV6 + UDP + CUSTOM + ETHERNET))
		return SHOT;
	move_ethernet(ethernet, (void *)ethernet + IPV6 + UDP + CUSTOM);
	struct ipv6 *ip = (void *)(ethernet + 1);
	write_outer(ip, &inner, exit->gateway[0], exit->gateway[1], length, UDP_PROTOCOL);
	write_udp((void *)(ip + 1), exit, length);
	return NEXT;
}

SEC("classifier/empty") int empty(struct __sk_buff *skb)
{
	return NEXT;
}

SEC("classifier/empty_ingress") int empty_ingress(struct __sk_buff *skb)
{
	return NEXT;
}

SEC("cgroup/setsockopt") int option(struct bpf_sockopt *context)
{
	// The hook copies a page at most; longer values are passed on as they are.
	if (context->optlen > 4096)
		context->optlen = 0;
	return 1;
}

// What the sink expects: everything behind the Ethernet header.
struct expected {
	__u32 type; // Ethernet type, network order
	__u32 protocol; // of the outer header
	__u32 protocol_at; // where that byte stands
	__u32 inner_at; // where the inner IPv6 header begins
	__u32 next; // protocol of the inner packet: UDP or TCP
	__u32 port; // its destination port, network order
	__u32 checksum_at; // an outer UDP checksum that is not zero; 0: none is expected
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct expected);
} expectation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

// Counts what arrives, as expected or not.
INLINE void judge(struct __sk_buff *skb)
{
	__u32 zero = 0, one = 1;
	struct expected *expected = map_lookup(&expectation, &zero);
	__u64 *good = map_lookup(&arrived, &zero), *other = map_lookup(&arrived, &one);
	if (!expected || !good || !other)
		return;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *ethernet = data;
	__u32 protocol_at = expected->protocol_at, inner_at = expected->inner_at,
	      checksum_at = expected->checksum_at;
	if (protocol_at > 64 || inner_at > 128 || checksum_at > 64)
		return;
	__u8 *protocol = data + ETHERNET + protocol_at;
	__u16 *checksum = data + ETHERNET + checksum_at;
	struct ipv6 *ip = data + ETHERNET + inner_at;
	struct udp *udp = (void *)(ip + 1); // TCP's ports stand at the same place
	if ((void *)(udp + 1) <= end && (void *)(ethernet + 1) <= end &&
	    (void *)(protocol + 1) <= end && (void *)(checksum + 1) <= end &&
	    (!checksum_at || *checksum) && ethernet->type == expected->type &&
	    *protocol == expected->protocol &&
	    (ip->version_class_label & BE32(0xf0000000)) == BE32(0x60000000) &&
	    ip->next_header == expected->next && udp->destination == expected->port)
		++*good;
	else
		++*other;
}

// Lets nothing through.
SEC("classifier/sink") int sink(struct __sk_buff *skb)
{
	judge(skb);
	return SHOT;
}

// Lets everything through.
SEC("classifier/watch") int watch(struct __sk_buff *skb)
{
	judge(skb);
	return NEXT;
}

// The far end of TCP: takes the headers off of what hand_ip6, hand_udp or anyone else put on.
SEC("classifier/decap") int decap(struct __sk_buff *skb)
{
	struct ethernet *ethernet = start(skb);
	if (!has(skb, ethernet, ETHERNET + IPV6) || ethernet->type != BE16(0x86dd))
		return NEXT;
	struct ipv6 *ip = (void *)(ethernet + 1);
	__s32 len;
	if (ip->destination[0] != BE32(0xfd00000e))
		return NEXT;
	if (ip->next_header == IPV6_IN)
		len = IPV6;
	else if (ip->next_header == UDP_PROTOCOL)
		len = IPV6 + UDP + CUSTOM;
	else
		return NEXT;
	if (adjust_room(skb, -len, BPF_ADJ_ROOM_MAC,
			BPF_F_ADJ_ROOM_FIXED_GSO | DECAP_L3_IPV6))
		return SHOT;
	return NEXT;
}
