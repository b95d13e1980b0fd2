# $1: how many versions will be installed. packaging/build fills in which one this is.
if [ "$1" -gt 1 ] && [ -z "${LATCHKEY_ALLOW_DOWNGRADE:-}" ]; then
    new='@VERSION@'
    old=$(rpm -q --qf '%{VERSION}-%{RELEASE}\n' latchkey 2>/dev/null | sort -V | tail -n 1)
    if [ -n "$old" ] && [ "$old" != "$new" ] &&
        [ "$(printf '%s\n%s\n' "$old" "$new" | sort -V | tail -n 1)" = "$old" ]; then
        cat >&2 <<EOF
latchkey $new is older than $old, which is here: nothing was changed.

A newer latchkey may have brought /var/lib/latchkey/latchkey.redb into a form that
an older one does not read. To go back:

  1. keep what is there:   cp -a /var/lib/latchkey /var/lib/latchkey.newer
  2. allow it, once:       LATCHKEY_ALLOW_DOWNGRADE=1 rpm -U --oldpackage latchkey-$new....rpm
  3. if latchkey now refuses its database, put back a backup that the older one took
     before the upgrade:   systemctl stop latchkey; latchkey restore FILE

latchkey-upgrade(7) says more: man latchkey-upgrade
EOF
        exit 1
    fi
fi
