# Run as root in a fresh Debian system by test_package.py, with the verbs as arguments: the package is installed there, used
# by the user it makes, removed and purged. Ends with "all is well", or at the first thing that is not.
set -euo pipefail
trap 'echo "line $LINENO: $BASH_COMMAND"' ERR
export DEBIAN_FRONTEND=noninteractive
verbs=("$@")

running() { grep -qx "$1" /proc/[0-9]*/comm 2>/dev/null; }
fails() { if "$@" >/root/output 2>&1; then echo "it did not fail: $*"; return 1; fi; }

# As a fresh system, with manual pages, which such systems leave out otherwise.
rm -f /etc/dpkg/dpkg.cfg.d/*
apt-get -qq update
apt-get -qq -y --no-install-recommends install /root/plexus.deb >/root/install.log 2>&1 || { cat /root/install.log; false; }
grep -q "nothing is served yet" /root/install.log

# The user, his groups, and no process.
[[ $(id -nG plexus) == "plexus disk" ]]
getent passwd plexus | grep -q '/nonexistent:/usr/sbin/nologin$'
fails running plexus
for verb in "${verbs[@]}"; do
    [[ -s /usr/share/man/man1/plexus-$verb.1.gz ]]
    plexus help "$verb" >/dev/null
done
dpkg --verify plexus
[[ $(stat -c '%U %a' /etc/plexus/plexus.toml) == "root 644" ]]

# A mirror, served by that user as the service would, at the service's places.
install -d -o plexus -g disk -m 755 /run/plexus
install -d -o plexus -g plexus -m 750 /var/lib/plexus
as_plexus() { setpriv --reuid=plexus --regid=disk --init-groups "$@"; }
as_plexus plexus create data /var/lib/plexus/a.img /var/lib/plexus/b.img --size 64M
{
    echo 'disks = ["/var/lib/plexus/a.img", "/var/lib/plexus/b.img"]'
    grep -v '^lock-memory' /etc/plexus/plexus.toml
} >/root/plexus.toml
cp /root/plexus.toml /etc/plexus/plexus.toml
as_plexus plexus serve --config /etc/plexus/plexus.toml >/root/serve.log 2>&1 &
for _ in $(seq 600); do
    ! grep -q nbd+unix /root/serve.log || break
    sleep 0.1
done
grep -q 'nbd+unix:///data?socket=/run/plexus/nbd.sock' /root/serve.log
[[ $(stat -c '%U %G %a' /run/plexus/nbd.sock) == "plexus disk 600" ]]
plexus wait data --timeout 60
plexus status -x
# Root in a session of his own finds it, too.
mkdir /run/session
XDG_RUNTIME_DIR=/run/session plexus status data
plexus break data 1
plexus join data /var/lib/plexus/b.img
plexus wait data --timeout 60

# An upgrade does not touch the server, nor what the user has written.
dpkg -i /root/plexus.deb
plexus status -x
cmp /root/plexus.toml /etc/plexus/plexus.toml

# With a client the package stays. Without one the server is stopped in order.
apt-get -qq -y --no-install-recommends install libnbd-bin >/root/install.log 2>&1
# A client that stays, for nobody reads what it copies.
mkfifo /root/gate
exec 8<>/root/gate
nbdcopy 'nbd+unix:///data?socket=/run/plexus/nbd.sock' - >/root/gate &
client=$!
for _ in $(seq 600); do
    ! plexus status --json | grep -Eq '"clients" *: *[1-9]' || break
    sleep 0.1
done
fails dpkg --remove plexus
grep -q "mirrors are in use" /root/output
plexus status -x
kill "$client"
for _ in $(seq 600); do
    plexus status --json | grep -Eq '"clients" *: *[1-9]' || break
    sleep 0.1
done
dpkg --remove plexus
fails running plexus
[[ ! -e /usr/bin/plexus ]]
# The user's own is still there, and the disks were left clean.
cmp /root/plexus.toml /etc/plexus/plexus.toml
[[ -s /var/lib/plexus/a.img && -s /var/lib/plexus/b.img ]]
sum=$(sha256sum /var/lib/plexus/*.img)

# Purged: the configuration of the package goes, all else stays.
echo mine >/etc/plexus/mine
dpkg --purge plexus
[[ ! -e /etc/plexus/plexus.toml && $(cat /etc/plexus/mine) == mine ]]
[[ $(sha256sum /var/lib/plexus/*.img) == "$sum" ]]
id plexus >/dev/null

# Installed again it serves the same disks.
dpkg -i /root/plexus.deb >/dev/null
plexus examine /var/lib/plexus/a.img /var/lib/plexus/b.img
rm /etc/plexus/mine
dpkg --purge plexus
[[ ! -e /etc/plexus ]]
echo "all is well"
