# $1: how many versions stay installed. /var/lib/latchkey is never deleted: it holds keys.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || :
    if [ "$1" -ge 1 ]; then
        # Until here the version before went on serving.
        systemctl try-restart latchkey.service || :
    fi
fi
