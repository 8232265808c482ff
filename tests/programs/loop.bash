# SPDX-License-Identifier: Apache-2.0
# State: bash in a loop of builtins, with variables, an array, a function and a trap.
declare -A words=([one]=$RANDOM [two]=$RANDOM)
list=($RANDOM $RANDOM $RANDOM)
secret="${words[one]}-${words[two]}-${list[*]}-$RANDOM"
count=0
trap 'trapped=yes' USR1
check() {
  trapped=no
  kill -USR1 $BASHPID
  [[ $trapped == yes && ${#list[@]} == 3 && $secret == "${words[one]}"-* ]] && echo ok || echo wrong
}
echo ready
while read -r line; do
  ((++count))
  case $line in
    ping) echo pong ;;
    'secret?') echo "$secret" ;;
    'check?') check ;;
  esac
done
