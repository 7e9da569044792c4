#!/bin/sh
# Takes markdown-it from npm as it is published: sh lite/server/web/vendor/update.sh 14.3.3
# The licences are its own and those of the packages that its browser build holds. Version 15.0.3
# parses 14 times more slowly (8.5 ms for 8,000 characters), which an answer would show as it grows.
set -eu
cd "$(dirname "$0")"
npm pack --silent "markdown-it@$1" >/dev/null
tar xzf "markdown-it-$1.tgz"
cp package/dist/markdown-it.min.js markdown-it.js
{
  printf 'markdown-it %s\n\n' "$1"
  cat package/LICENSE
  for name in entities linkify-it mdurl punycode.js uc.micro; do
    range=$(node -p "require('./package/package.json').dependencies['$name']")
    file=$(npm pack --silent "$name@$range" | tail -n 1)
    mkdir -p part
    tar xzf "$file" -C part --strip-components 1
    printf '\n----\n\n%s %s\n\n' "$name" "$(node -p "require('./part/package.json').version")"
    cat part/LICENSE*
    rm -r part "$file"
  done
} >LICENSES.txt
rm -r package "markdown-it-$1.tgz"
printf '%s  markdown-it.js\n' "$(sha256sum <markdown-it.js | cut -d ' ' -f 1)" >SHA256SUMS
