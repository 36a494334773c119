# What follows is the same in every script. Its variables are set above.
#
#   sh SCRIPT [FOLDER]    attach the disks and mount their file systems, read-only, beneath FOLDER
#
# It asks for the password that was shown with the script, and ends everything when a line is entered.
set -eu
umask 077

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "run this as root: it mounts file systems"
for program in nbdfuse nbdkit openssl losetup partx blkid mount umount fusermount3; do
    command -v "$program" >/dev/null 2>&1 || die "$program is missing; install it (Debian: libnbd-bin nbdkit openssl mount util-linux fuse3)"
done

folder=${1:-$PWD/$NAME}
case $folder in *[[:space:]]*) die "$folder has a space in it; name another folder" ;; esac
work=$(mktemp -d)
mounts="" loops="" served=""

end() {
    trap - EXIT INT TERM HUP
    for place in $mounts; do umount "$place" && rmdir "$place"; done
    for loop in $loops; do losetup --detach "$loop"; done
    for disk in $served; do fusermount3 -u "$work/$disk" || umount -l "$work/$disk"; done
    rm -rf "$work/tls"
    for disk in $served; do rmdir "$work/$disk"; done
    rmdir "$work" "$folder" 2>/dev/null || :
    say "everything is unmounted"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

serve() { # disk; whether it is there now
    # nbdkit speaks TLS for nbdfuse, which takes no certificates by their place.
    nbdfuse --readonly --pidfile="$work/tls/$1.pid" "$work/$1/disk" --command \
        nbdkit --single --exit-with-parent nbd hostname="$HOST" port="$PORT" export="$1" tls=require \
        tls-certificates="$work/tls" 2>"$work/tls/$1.log" &
    server=$!
    waits=0
    until [ -s "$work/tls/$1.pid" ]; do
        kill -0 "$server" 2>/dev/null || return 1
        waits=$((waits + 1))
        [ "$waits" -lt 300 ] || die "$HOST:$PORT does not answer"
        sleep 0.1
    done
}

terminal=$(stty -g 2>/dev/null || :)
printf 'Password: ' >&2
[ -z "$terminal" ] || stty -echo
read -r password || :
[ -z "$terminal" ] || { stty "$terminal"; say ""; }

mkdir "$work/tls"
printf '%s' "$AUTHORITY" >"$work/tls/ca-cert.pem"
printf '%s' "$CERTIFICATE" >"$work/tls/client-cert.pem"
printf '%s' "$KEY" >"$work/tls/locked.pem"
printf '%s' "$password" | openssl pkey -in "$work/tls/locked.pem" -passin stdin -out "$work/tls/client-key.pem" 2>/dev/null ||
    die "the password is wrong; it was shown when the script was made"
unset password

mkdir -p "$folder"
for disk in $DISKS; do
    mkdir "$work/$disk"
    # The service needs a moment to know a script that was made just now.
    for try in 1 2 3 4 5; do
        serve "$disk" && break
        [ "$try" -lt 5 ] || die "$HOST:$PORT does not serve $disk; the session may be over: make a new script"
        sleep 0.5
    done
    served="$disk $served"
    image="$work/$disk/disk"
    # Each partition by its place: the kernel's own partitions of a loop device need a running udev.
    partitions=$(partx --show --noheadings --raw --output NR,START,SECTORS "$image" 2>/dev/null || :)
    [ -n "$partitions" ] || partitions="0 0 $(($(stat -c %s "$image") / 512))"
    while read -r number start sectors; do
        [ -n "$number" ] || continue
        loop=$(losetup --find --show --read-only --offset $((start * 512)) --sizelimit $((sectors * 512)) "$image")
        loops="$loop $loops"
        kind=$(blkid --probe --output value --match-tag TYPE "$loop" || :)
        case $kind in
            ext2) options=ro ;;
            ext3 | ext4) options=ro,noload ;;
            xfs) options=ro,norecovery,nouuid ;;
            "") continue ;;
            swap) continue ;;
            LVM2_member)
                say "$disk, partition $number: a volume of LVM; look into it with \`keepstone recoverypoint browse\`"
                continue
                ;;
            *) options=ro ;;
        esac
        place="$folder/$disk"
        [ "$number" = 0 ] || place="$place-$number"
        mkdir "$place"
        if mount -o "$options" "$loop" "$place"; then
            mounts="$place $mounts"
            say "$place  ($kind)"
        else
            rmdir "$place"
            say "$disk, partition $number: this system does not mount $kind"
        fi
    done <<EOF
$partitions
EOF
done
[ -n "$mounts" ] || die "nothing could be mounted"
say "Copy what you need out of $folder. Press Enter to end."
read -r _ || :
