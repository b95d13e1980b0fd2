# $1: how many versions stay installed. /var/lib/latchkey is never deleted: it holds keys.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || :
    if [ "$1" -ge 1 ]; then
        # Until here the version before went on serving.
        systemctl try-restart latchkey.service || :
    fi
fi
if [ "$1" -eq 0 ]; then
    # The folders its files were in, which cargo-generate-rpm cannot make it own.
    for folder in /etc/latchkey /usr/share/latchkey /usr/share/doc/latchkey \
        /usr/share/licenses/latchkey; do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -empty -delete || :
    done
fi
