#!/bin/sh
# One throws a die, the others wait for their number. Usage: fantail-state run --count 7 -- luck_test.sh
set -eu
if [ "$FANTAIL_INDEX" -eq 0 ]; then
  until [ "$(fantail-state get lucky --default '[]' | tr -cd 123456 | wc -c)" -eq 6 ]; do
    fantail-state set die "$(shuf -i 1-6 -n 1)"
  done
  fantail-state get lucky | tr -cd '123456' | fold -w1 | sort | tr -d '\n'
  echo
else
  fantail-state watch die --when equal --value "$FANTAIL_INDEX" --from beginning --count 1 >/dev/null
  fantail-state append lucky "$FANTAIL_INDEX" >/dev/null
fi
