#!/bin/bash
# Runs a command under the limits that Docker sets by default, without an engine: what works here works in a container, and what a
# container refuses is refused here. In place: signals and the exit code are the command's own. Needs root, util-linux, iproute2, python3.
#
#   as-docker.sh [--root] [--cap NAME]... [--cap-drop-all] [--no-new-privs] [--device PATH]... [--sysctl NAME=VALUE]... [--net host]
#                [--] COMMAND [ARGUMENT]...
#
#   --root           uid 0 (docker run --user 0); uid and gid 65532 otherwise, as in the image
#   --cap NAME       adds a capability to the default set (--cap-add); a user that is not root gets nothing from it, as with Docker
#   --cap-drop-all   takes the default set away first (--cap-drop ALL)
#   --no-new-privs   --security-opt no-new-privileges
#   --device PATH    --device; /dev holds only Docker's few nodes otherwise
#   --sysctl N=V     --sysctl, in the network namespace of the command
#   --net host       stays in the caller's network namespace, which a test made with `ip netns`; otherwise a new one with lo up
#
# Set: user, bounding and all other capability sets, seccomp (what Docker's profile refuses to a process without SYS_ADMIN), mount, IPC
# and UTS namespaces, /proc and /sys read-only where Docker's are, /dev.
# Not set: the root file system, the PID namespace (it would swallow signals), control groups.
set -euo pipefail

readonly here=$(dirname "$(readlink -f "$0")")

main() {
    if [ "${1-}" = --inside ]; then
        shift
        enter "$@"
    fi
    uid=65532 net=private nnp= sysctls= devices= added=
    caps=chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,setfcap
    while [ $# -gt 0 ]; do
        case "$1" in
            --root) uid=0 ;;
            --cap) shift && name=${1,,} && added+=,${name#cap_} ;;
            --cap-drop-all) caps= ;;
            --no-new-privs) nnp=--no-new-privs ;;
            --device) shift && devices+="$1 " ;;
            --sysctl) shift && sysctls+="$1 " ;;
            --net) shift && net=$1 ;;
            --) shift && break ;;
            -*) usage ;;
            *) break ;;
        esac
        shift
    done
    [ $# -gt 0 ] || usage
    caps+=$added
    caps=${caps#,}
    [ "$(id -u)" = 0 ] || { echo "$0: needs root, to take rights away" >&2 && exit 125; }
    local own_net=(--net)
    [ "$net" != host ] || own_net=()
    exec unshare --mount --propagation private --ipc --uts "${own_net[@]}" -- \
        "$0" --inside "$uid" "$caps" "$net" "$nnp" "$devices" "$sysctls" "$@"
}

usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 125
}

# In the new namespaces, still with every right.
enter() {
    local uid=$1 caps=$2 net=$3 nnp=$4 devices=$5 sysctls=$6
    shift 6
    if [ "$net" != host ]; then
        ip link set lo up
        # What Docker sets in a network namespace of a container.
        echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
        echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
    fi
    local setting path
    for setting in $sysctls; do
        path=${setting%%=*}
        echo "${setting#*=}" >"/proc/sys/${path//.//}"
    done
    devices "$devices"
    # Another network namespace shows through /sys only in a new mount of it.
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
    for path in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do
        [ ! -e "$path" ] || { mount --bind "$path" "$path" && mount -o remount,bind,ro,nosuid,nodev,noexec "$path"; }
    done
    for path in /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/sched_debug; do
        [ ! -e "$path" ] || mount --bind /dev/null "$path"
    done
    for path in /proc/acpi /proc/asound /proc/scsi /sys/firmware; do
        [ ! -d "$path" ] || mount -t tmpfs -o ro tmpfs "$path"
    done
    local bounding=-all
    [ -z "$caps" ] || bounding+=,+${caps//,/,+}
    # The filter while SYS_ADMIN is there, so that it does not need no_new_privs either.
    exec python3 "$here/seccomp.py" setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps -all --ambient-caps -all \
        --bounding-set "$bounding" $nnp -- "$@"
}

# A /dev of its own with Docker's nodes and those asked for, each with the mode it has here.
devices() {
    local dev node
    dev=$(mktemp -d)
    mount -t tmpfs -o mode=755,size=64k tmpfs "$dev"
    for node in null zero full random urandom tty; do
        mknod -m 666 "$dev/$node" c $(stat -c '0x%t 0x%T' "/dev/$node")
    done
    for node in $1; do
        mkdir -p "$dev/$(dirname "${node#/dev/}")"
        mknod -m "$(stat -c %a "$node")" "$dev/${node#/dev/}" c $(stat -c '0x%t 0x%T' "$node")
    done
    mkdir "$dev/pts" "$dev/shm"
    ln -s /proc/self/fd "$dev/fd"
    ln -s pts/ptmx "$dev/ptmx"
    ln -s /proc/self/fd/0 "$dev/stdin"
    ln -s /proc/self/fd/1 "$dev/stdout"
    ln -s /proc/self/fd/2 "$dev/stderr"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$dev/pts"
    mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$dev/shm"
    mount --move "$dev" /dev
    rmdir "$dev"
}

main "$@"
