# A CNI plugin for tests: an address of its own on the pod's loopback interface, nothing outside the pod's namespace.
set -e
config=$(cat)
case "$CNI_COMMAND" in
ADD)
  next=$( (flock 9; n=$(cat @COUNTER@ 2>/dev/null || echo 1); n=$((n + 1)); echo $n > @COUNTER@; echo $n) 9> @COUNTER@.lock)
  nsenter --net="$CNI_NETNS" busybox ip link set lo up
  nsenter --net="$CNI_NETNS" busybox ip addr add "10.254.0.$next/32" dev lo
  echo "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"address\":\"10.254.0.$next/32\",\"interface\":0}]}"
  ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}' ;;
esac
