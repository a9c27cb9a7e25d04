# Tries what the data path, its exits and its tests may use; `$config` is the kernel's.
feature() {
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "feature: $name: yes"; else echo "feature: $name: no"; fi
}
device() {
    local type=$1
    feature "device \`$type\`" ip link add probe0 type "$@"
    ip link del probe0 2>/dev/null
}
configured() { grep -q "^$1=[ym]$" "$config"; }

device veth
device netkit
device dummy
device bond
device bridge
device ifb
device vxlan id 1 dstport 4790 local ::1 remote ::2
device ip6tnl mode any local ::1 remote ::2
device sit local 127.0.0.1 remote 127.0.0.2
device ipip local 127.0.0.1 remote 127.0.0.2
device geneve id 1 remote ::2
device vrf table 10
ip link add probe1 type veth peer name probe2
feature "device \`macvlan\`" ip link add link probe1 name probe0 type macvlan
ip link del probe1
modprobe -q tun
feature "device \`tun\`" ip tuntap add probe0 mode tun
ip link del probe0 2>/dev/null
feature "vxlan in GPE mode" ip link add probe0 type vxlan external gpe dstport 4790
ip link del probe0 2>/dev/null
# Their configuration by netlink is there when the module is.
modprobe -q fou
modprobe -q fou6
feature "FOU (IPv4)" ip fou add port 5555 ipproto 41
feature "GUE (IPv4)" ip fou add port 5556 gue
feature "FOU (IPv6)" ip -6 fou add port 5557 ipproto 41
feature "GUE (IPv6)" ip -6 fou add port 5558 gue
feature "ip6tnl over FOU" ip link add probe0 type ip6tnl mode any local ::1 remote ::2 \
    encap fou encap-sport auto encap-dport 5557
ip link del probe0 2>/dev/null
feature "seg6 encapsulation" ip -6 route add 2001:db8:a::/64 encap seg6 mode encap \
    segs 2001:db8:b::1 dev lo
feature "seg6local End.DT6" ip -6 route add 2001:db8:c::1/128 encap seg6local action End.DT6 \
    table 254 dev lo
ip link add probe0 type veth
ip link set probe0 up
feature "qdisc \`clsact\`" tc qdisc add dev probe0 clsact
feature "qdisc \`fq\`" tc qdisc add dev probe0 root fq
feature "qdisc \`netem\`" tc qdisc replace dev probe0 root netem delay 1ms
ip link del probe0
for module in cls_bpf act_bpf; do feature "module \`$module\`" modprobe "$module"; done
for setting in net.ipv4.tcp_fwmark_accept net.ipv4.fwmark_reflect net.mptcp.enabled; do
    feature "sysctl \`$setting\`" sysctl -n "$setting"
done
feature "BTF of the kernel" test -s /sys/kernel/btf/vmlinux
for option in BPF_SYSCALL BPF_JIT CGROUP_BPF NET_CLS_ACT NETKIT NET_XGRESS; do
    feature "\`CONFIG_$option\`" configured "CONFIG_$option"
done
