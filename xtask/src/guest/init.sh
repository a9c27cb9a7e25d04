#!/bin/busybox sh
# The guest's first process: the host's root, read-only, under an overlay that takes all writes.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /modules/*.ko; do $b insmod "$module" || echo "init: $module is not loaded"; done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /lower ||
    { echo "init: the host's root cannot be mounted"; $b poweroff -f; }
$b mount -t tmpfs -o mode=755 rw /rw
$b mkdir /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new ||
    { echo "init: no overlay"; $b poweroff -f; }
$b cp /stage/run /new/.dynencap-guest
$b umount /proc
$b mount --move /dev /new/dev
# bash, since it also buries the processes that tests leave to it.
exec $b switch_root /new /bin/bash /.dynencap-guest
