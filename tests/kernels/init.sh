#!/bin/busybox sh
# The guest's first program, in its initramfs. It makes the shared root folder the root, writable for the guest alone
# (a layer of memory lies over it), runs /command there with bash, hands over status and report, and switches off.
export PATH=/bin
busybox mkdir -p /proc /sys /dev /lower /upper /new
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for module in $(busybox cat /modules/order); do
    busybox insmod "/modules/$module"
done
busybox mount -t virtiofs -o ro root /lower
busybox mount -t tmpfs -o size=50% tmpfs /upper
busybox mkdir /upper/changes /upper/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work overlay /new

cd /new
busybox mkdir -p proc sys dev run tmp
for folder in proc sys dev; do
    busybox mount --move "/$folder" "/new/$folder"
done
busybox mkdir -p dev/pts dev/shm
busybox mount -t devpts devpts dev/pts
busybox mount -t tmpfs tmpfs dev/shm
busybox mount -t tmpfs tmpfs run
busybox mount -t tmpfs tmpfs tmp
busybox ln -sf /proc/self/fd dev/fd
busybox ln -sf fd/0 dev/stdin
busybox ln -sf fd/1 dev/stdout
busybox ln -sf fd/2 dev/stderr
busybox mount -t bpf bpf sys/fs/bpf
busybox mount -t tracefs tracefs sys/kernel/tracing
busybox mount -t cgroup2 cgroup2 sys/fs/cgroup
busybox ip link set lo up
while read -r tag folder; do # further shared folders, at the same places as outside
    busybox mkdir -p "/new$folder"
    busybox mount -t virtiofs -o ro "$tag" "/new$folder"
done </shares
for port in sys/class/virtio-ports/*; do
    busybox ln -sf "${port##*/}" "dev/port-$(busybox cat "$port/name")"
done

busybox cp /command run/command
busybox echo started >dev/port-status
# As every host's first program does: paths end where /proc has them end.
busybox mount --move . /
busybox chroot . /bin/bash /run/command <dev/null >dev/port-output 2>&1
status=$?
if [ -f run/report ]; then busybox cat run/report >dev/port-report; fi
busybox echo "$status" >dev/port-status
busybox reboot -f
