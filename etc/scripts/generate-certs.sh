#!/bin/sh
# Certificates to try TLS with: an authority of one's own, and a certificate of it for some names and addresses.
#
#   generate-certs.sh FOLDER [NAME...]      FOLDER/ca.pem, site.pem and site.key; names: localhost, 127.0.0.1 and ::1
#
# The authority's key is thrown away: it signs this certificate and no other. Not for the internet. Needs openssl.
set -eu
[ $# -ge 1 ] || { sed -n '4s/^# *//p' "$0" >&2; exit 64; }
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
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$work/site.key" -out "$work/site.csr" 2>/dev/null
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$names" >"$work/names"
openssl x509 -req -in "$work/site.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 30 -sha256 \
    -extfile "$work/names" -out "$work/site.pem" 2>/dev/null
mv "$work/ca.pem" "$work/site.pem" "$work/site.key" "$folder/"
echo "$folder/site.pem and site.key are for $*; clients believe $folder/ca.pem"
