// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The other hook that the talk weighed: a program in a route's lightweight tunnel, which pushes
// an outer header and has the packet routed again. A file of its own: `ip route` loads it.

#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define BE32(x) __builtin_bswap32(x)

static long (*const push_encap)(struct __sk_buff *skb, __u32 type, void *hdr,
				__u32 len) = (void *)BPF_FUNC_lwt_push_encap;

char gpl[] SEC("license") = "Dual MIT/GPL";

struct ipv6 {
	__u32 version_class_label;
	__u16 length;
	__u8 next_header, hop_limit;
	__u64 source[2], destination[2];
};

SEC("xmit") int lwt(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6 *ip = data;
	if (data + sizeof(*ip) > end)
		return BPF_DROP;
	struct ipv6 outer = {
		.version_class_label =
			BE32(0x60000000) | (ip->version_class_label & BE32(0x0ff00000)),
		.length = __builtin_bswap16((__u16)skb->len),
		.next_header = 41,
		.hop_limit = 64,
		.source = { ip->source[0], ip->source[1] },
		// fd00:e::1
		.destination = { BE32(0xfd00000e), (__u64)BE32(1) << 32 },
	};
	if (push_encap(skb, BPF_LWT_ENCAP_IP, &outer, sizeof(outer)))
		return BPF_DROP;
	return BPF_LWT_REROUTE;
}
