# $1: how many versions are installed now.
systemd-sysusers latchkey.conf || exit 1
systemd-tmpfiles --create latchkey.conf || :
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || :
fi
if [ "$1" -eq 1 ]; then
    # Enabled or not: the distribution's presets say. Starting it is the administrator's.
    systemctl --no-reload preset latchkey.service >/dev/null 2>&1 || :
fi
