#!/bin/sh
# Certificates to try TLS with: an authority of one's own, and certificates of it for some names and addresses.
#
#   generate-certs.sh FOLDER [NAME...]      FOLDER/ca.pem, site.pem and site.key; names: localhost, 127.0.0.1 and ::1
#
# Beside them site-rsa.pem and site-rsa.key, of the same names, with another kind of key. The authority's own key is thrown
# away: it signs these and no others. Who has one may be a server or a client by it. Not for the internet. Needs openssl.
set -eu
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
case ${1:--} in -*) sed -n '4s/^# *//p' "$0" >&2; exit 64 ;; esac
folder=$1; shift
[ $# -ge 1 ] || set -- localhost 127.0.0.1 ::1
umask 077
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

names=
for name; do
    case $name in
    *:* | *[!0-9.]*) kind=DNS ;;
    *) kind=IP ;;
    esac
    case $name in *:*) kind=IP ;; esac
    names="$names${names:+,}$kind:$name"
done
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=lbsvc test authority" -addext "keyUsage=keyCertSign" \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" >"$work/names"
subject="/CN=$1"
issue() { # under this name, with a key of this kind
    of=$1; shift
    openssl req -new -newkey "$@" -nodes -subj "$subject" -keyout "$work/$of.key" -out "$work/$of.csr" 2>/dev/null
    openssl x509 -req -in "$work/$of.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 30 -sha256 \
        -extfile "$work/names" -out "$work/$of.pem" 2>/dev/null
    mv "$work/$of.pem" "$work/$of.key" "$folder/"
}
issue site ec -pkeyopt ec_paramgen_curve:P-256
issue site-rsa rsa:2048
mv "$work/ca.pem" "$folder/"
echo "$folder/site.pem and site.key are for $*; clients believe $folder/ca.pem"
