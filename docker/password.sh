#!/bin/sh
# The database's password, as two files in the folder FOLDER that server and clients share: as it
# is, for the server, and as libpq's password file. Usage: password.sh CONFIGURED FOLDER
# CONFIGURED is the operator's own; where it is empty, one is made the first time, and kept.
set -eu
umask 077
configured=$1
password="$2/database_password"
if [ -s "$configured" ]; then
    tr -d '\r\n' <"$configured" >"$password.new"
elif [ ! -s "$password" ]; then
    head -c 32 /dev/urandom | base64 | tr -d '=+/\n' >"$password.new"
fi
if [ -e "$password.new" ]; then
    # Read by the server's user, too; only the containers that mount the folder see it.
    chmod 444 "$password.new"
    mv -f "$password.new" "$password"
fi
# The stars: any host, port, database and user. Colons and backslashes are escaped.
printf '*:*:*:*:%s\n' "$(sed 's/[\\:]/\\&/g' "$password")" >"$2/pgpass.new"
mv -f "$2/pgpass.new" "$2/pgpass"
