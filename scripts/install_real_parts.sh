#!/bin/sh
# Installs what the tests and benchmarks use for real: PostgreSQL, Docker and its registry, Chromium, nginx, HAProxy, PgBouncer, wrk, testssl.sh, bubblewrap, dig, Pebble, mmdebstrap, sudo, noVNC, Prometheus, Node, a C compiler.
# Only as root on Debian, and only what is missing; no service is started or left running.
set -eu

wanted="postgresql docker.io chromium nginx-light haproxy pgbouncer wrk testssl.sh bubblewrap busybox-static faketime iproute2 iptables nftables bind9-dnsutils pebble docker-registry apache2-utils docker-compose systemd mmdebstrap sudo curl python3-venv python3-dev gcc libc6-dev novnc websockify tigervnc-standalone-server prometheus"
# From wherever it comes, if there is one.
command -v node > /dev/null || wanted="$wanted nodejs"
command -v npm > /dev/null || wanted="$wanted npm"

if ! [ -e /etc/debian_version ] || [ "$(id -u)" -ne 0 ]; then
    echo "install_real_parts: not root on Debian, so nothing is installed; tests that lack a part are skipped." >&2
    echo "install_real_parts: the parts are: $wanted" >&2
    exit 0
fi

missing=""
for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "install_real_parts: installing$missing"
# Packages start their services when installed; these are for the tests to start by hand.
policy=/usr/sbin/policy-rc.d
made_policy=no
if ! [ -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    made_policy=yes
fi
trap '[ "$made_policy" = no ] || rm -f "$policy"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing > /dev/null
