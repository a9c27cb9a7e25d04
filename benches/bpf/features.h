// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A part of peers.bpf.c: the work with lookup (`hand`), and the same with one feature more or less,
// to know what each costs. `all` has all of them, as the egress program has.

#define CLASS 1 // DSCP and ECN of the inner header
#define HASH 2 // the flow's hash: flow label, UDP source port
#define REASON 4 // a counter by reason, of this CPU
#define SOCKET 8 // a counter of the socket's
#define POLICY 16 // two exits and a generation, allowed under the policies of now
#define LIMITS 32 // lengths, protocol, super-packets, MTU; hop limit
#define ALL (CLASS | HASH | REASON | SOCKET | POLICY | LIMITS)
#define TCP_PROTOCOL 6

struct settings {
	__u32 policy_generation, uplink_mtu;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

#define K1 0x9E3779B97F4A7C15ull
#define K2 0xC2B2AE3D27D4EB4Full
#define K3 0x165667B19E3779F9ull
#define K4 0x85EBCA77C2B2AE63ull

INLINE __u64 endpoint(const __u64 address[2], __u16 port)
{
	__u64 e = address[0] * K1 ^ (address[1] ^ port) * K2;
	e ^= e >> 32;
	e *= K3;
	return e ^ e >> 29;
}

INLINE __u64 flow_hash(const struct ipv6 *ip)
{
	const __u16 *ports = (void *)(ip + 1);
	__u64 h = endpoint(ip->source, BE16(ports[0])) + endpoint(ip->destination, BE16(ports[1])) +
		  ip->next_header * K4;
	h ^= h >> 32;
	h *= K1;
	return h ^ h >> 29;
}

INLINE int hand(struct __sk_buff *skb, const int is_udp, const int features)
{
	const __u32 overhead = is_udp ? IPV6 + UDP + CUSTOM : IPV6;
	__u32 zero = 0, one = 1;
	struct state *state = state_of(skb);
	if (!state)
		return NEXT;
	struct exit *place = &state->exits[0];
	struct exit exit;
	struct settings *config = 0;
	if (features & (POLICY | LIMITS)) {
		config = map_lookup(&settings, &zero);
		if (!config)
			return SHOT;
	}
	if (features & POLICY) {
		// Read without a lock while another CPU may write the other exit.
		__u32 generation = *(volatile __u32 *)&state->generation;
		place = &state->exits[generation & 1];
		volatile struct exit *read = place;
		exit.gateway[0] = read->gateway[0];
		exit.gateway[1] = read->gateway[1];
		exit.header = read->header;
		exit.source_port = read->source_port;
		exit.destination_port = read->destination_port;
		if (*(volatile __u32 *)&state->generation != generation)
			return SHOT;
		__u64 wanted = (__u64)config->policy_generation << 32 | generation;
		if (*(volatile __u64 *)&state->checked != wanted)
			return SHOT;
	}
	struct ethernet *ethernet = start(skb);
	const __u32 seen = features & HASH ? IPV6 + 4 : IPV6;
	if (!has(skb, ethernet, ETHERNET + seen) || ethernet->type != BE16(0x86dd))
		return SHOT;
	struct ipv6 *ip = (void *)(ethernet + 1);
	__u32 length = skb->len - ETHERNET;
	__u8 hop_limit = 64;
	if (features & LIMITS) {
		if ((ip->version_class_label & BE32(0xf0000000)) != BE32(0x60000000) ||
		    IPV6 + BE16(ip->length) != length || skb->gso_size ||
		    length + overhead > config->uplink_mtu ||
		    (ip->next_header != TCP_PROTOCOL && ip->next_header != UDP_PROTOCOL))
			return SHOT;
		hop_limit = ip->hop_limit;
	}
	struct inner inner = { .source = { ip->source[0], ip->source[1] } };
	if (features & CLASS)
		inner.class = ip->version_class_label & BE32(0x0ff00000);
	__u16 port = 0;
	if (features & HASH) {
		__u64 hash = flow_hash(ip);
		__u32 label = hash >> 44;
		inner.class |= BE32(label ? label : 1);
		port = BE16(0xc000 | (hash & 0x3fff));
	}
	__u64 *counter = 0;
	if (features & REASON) {
		counter = map_lookup(&reasons, &one);
		if (!counter)
			return SHOT;
	}
	if (is_udp)
		length += UDP + CUSTOM;
	if (adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, is_udp ? GSO_UDP : GSO_IP6))
		return SHOT;
	if (!(features & POLICY))
		exit = *place;
	ethernet = start(skb);
	if (!has(skb, ethernet, ETHERNET + overhead))
		return SHOT;
	ip = (void *)(ethernet + 1);
	write_outer(ip, &inner, exit.gateway[0], exit.gateway[1], length,
		    is_udp ? UDP_PROTOCOL : IPV6_IN);
	if (features & LIMITS)
		ip->hop_limit = hop_limit;
	if (is_udp) {
		if (features & HASH && !exit.source_port)
			exit.source_port = port;
		write_udp((void *)(ip + 1), &exit, length);
	}
	if (features & SOCKET)
		// Relaxed: one that fetches would be an instruction of its own.
		__atomic_fetch_add(&state->encapsulated, 1, __ATOMIC_RELAXED);
	if (features & REASON)
		++*counter;
	return NEXT;
}

#define WITH(name, features)                                              \
	SEC("classifier/" #name "_ip6") int name##_ip6(struct __sk_buff *skb) \
	{                                                                 \
		return hand(skb, 0, features);                            \
	}                                                                 \
	SEC("classifier/" #name "_udp") int name##_udp(struct __sk_buff *skb) \
	{                                                                 \
		return hand(skb, 1, features);                            \
	}

WITH(hand, CLASS)
WITH(classless, 0)
WITH(hash, CLASS | HASH)
WITH(reason, CLASS | REASON)
WITH(counted, CLASS | SOCKET)
WITH(policy, CLASS | POLICY)
WITH(limits, CLASS | LIMITS)
WITH(all, ALL)
