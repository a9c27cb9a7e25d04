# Runs as the guest's first process in the host's root; `$release` and `$modules` are set.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir -p /run/lock
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
mkdir -p /lib/modules
[ -e "/lib/modules/$release" ] || ln -s "$modules" "/lib/modules/$release"
ip link set lo up
# Their configuration by netlink is there only when the module is.
modprobe -qa fou fou6
# Our line to the host: bytes as they are.
stty -F /dev/ttyS1 raw -echo
exec </dev/null >/dev/ttyS1 2>&1
now() { read -r uptime _ </proc/uptime; echo "$uptime"; }
echo "guest: ready $(uname -r)"
# suite INDEX FOLDER PROGRAM ARGUMENT…
suite() {
    local index=$1 folder=$2 start end status
    shift 2
    echo "guest: begin $index"
    start=$(now)
    (cd "$folder" && exec "$@")
    status=$?
    end=$(now)
    # A test may have left its last line unfinished.
    printf '\nguest: end %s %s %s %s\n' "$index" "$status" "$start" "$end"
}
