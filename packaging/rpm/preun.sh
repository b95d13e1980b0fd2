# $1: how many versions stay installed.
if [ "$1" -eq 0 ]; then
    systemctl --no-reload disable latchkey.service latchkey.socket >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ]; then
        systemctl stop latchkey.service latchkey.socket >/dev/null 2>&1 || :
    fi
fi
