"""Drives a cluster with the Kubernetes client for Python, as programs do. Arguments: a kubeconfig, an image of busybox.

Each function below is a test; the first failure ends the run with a traceback.
"""

import base64
import inspect
import json
import re
import sys
import threading
import time

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.stream import portforward, stream

KUBECONFIG, IMAGE = sys.argv[1:3]
NAMESPACE = "python"
TIMEOUT_SECONDS = 60


def fails(code, reason, call, *args, **kwargs):
    """The call is answered with this error; returns its Status."""
    try:
        call(*args, **kwargs)
    except ApiException as error:
        status = json.loads(error.body)
        assert (error.status, status["reason"]) == (code, reason), status
        return status
    raise AssertionError(f"{call} should fail")


def until(what, condition):
    """Waits until the condition gives something; returns that."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


def config_map(name, data=None, labels=None):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def pod(name, *command):
    container = client.V1Container(name="main", image=IMAGE, command=list(command))
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name, labels={"app": name}), spec=spec)


def wait_for_pod(core, name, phase="Running"):
    """By a watch from what is there, as programs wait."""
    for event in watch.Watch().stream(
        core.list_namespaced_pod, NAMESPACE, field_selector=f"metadata.name={name}", timeout_seconds=TIMEOUT_SECONDS
    ):
        if event["object"].status.phase == phase:
            return event["object"]
    raise AssertionError(f"pod {name} did not become {phase}")


def objects_are_written_and_read():
    core = client.CoreV1Api()
    assert client.VersionApi().get_code().minor == "35"
    assert "apps" in [group.name for group in client.ApisApi().get_api_versions().groups]
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))

    made = core.create_namespaced_config_map(NAMESPACE, config_map("a", {"x": "1"}, {"n": "0"}))
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo
    fails(409, "AlreadyExists", core.create_namespaced_config_map, NAMESPACE, config_map("a"))
    fails(404, "NotFound", core.read_namespaced_config_map, "nope", NAMESPACE)
    causes = fails(422, "Invalid", core.create_namespaced_config_map, NAMESPACE, config_map("A_"))["details"]["causes"]
    assert causes[0]["field"] == "metadata.name", causes
    core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
    fails(404, "NotFound", core.read_namespaced_config_map, "dry", NAMESPACE)
    unknown = {"metadata": {"name": "u"}, "bogus": 1}
    strict = fails(
        400, "BadRequest", core.create_namespaced_config_map, NAMESPACE, unknown, field_validation="Strict"
    )
    assert 'strict decoding error: unknown field "bogus"' in strict["message"], strict

    stale = made.metadata.resource_version
    made.data["x"] = "2"
    changed = core.replace_namespaced_config_map("a", NAMESPACE, made)
    assert changed.data == {"x": "2"} and changed.metadata.resource_version != stale
    made.metadata.resource_version = stale
    fails(409, "Conflict", core.replace_namespaced_config_map, "a", NAMESPACE, made)

    # A dict is a strategic merge patch, a list a JSON patch.
    patched = core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"x": None, "y": "3"}})
    assert patched.data == {"y": "3"}, patched
    patched = core.patch_namespaced_config_map("a", NAMESPACE, [{"op": "add", "path": "/data/z", "value": "4"}])
    assert patched.data == {"y": "3", "z": "4"}, patched
    patched = core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"z": None}})
    assert patched.data == {"y": "3"}, patched

    for n in range(1, 7):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"n{n}", labels={"n": str(n), "odd": str(n % 2)}))
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
        assert page.metadata.remaining_item_count == 8 - len(names)
    assert names == ["a", "kube-root-ca.crt", "n1", "n2", "n3", "n4", "n5", "n6"], names
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="odd=1,n notin (1)")
    assert [item.metadata.name for item in listed.items] == ["n3", "n5"]
    everywhere = core.list_config_map_for_all_namespaces(field_selector=f"metadata.name=a,metadata.namespace={NAMESPACE}")
    assert len(everywhere.items) == 1 and everywhere.items[0].data == {"y": "3"}
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="odd=0")
    left = core.list_namespaced_config_map(NAMESPACE, label_selector="odd")
    assert [item.metadata.name for item in left.items] == ["n1", "n3", "n5"]
    gone = core.delete_namespaced_config_map("n1", NAMESPACE)
    assert gone.status == "Success" and gone.details.name == "n1", gone
    fails(
        409,
        "Conflict",
        core.delete_namespaced_config_map,
        "n3",
        NAMESPACE,
        body=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other")),
    )

    # Services answer a delete with themselves; bytes are base64.
    port = client.V1ServicePort(port=80, target_port="http")
    service = client.V1Service(metadata=client.V1ObjectMeta(name="s"), spec=client.V1ServiceSpec(ports=[port]))
    assert core.create_namespaced_service(NAMESPACE, service).spec.ports[0].protocol == "TCP"
    assert core.delete_namespaced_service("s", NAMESPACE).spec.cluster_ip
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"k": "v"})
    assert base64.b64decode(core.create_namespaced_secret(NAMESPACE, secret).data["k"]) == b"v"


def changes_are_watched():
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    seen, watcher = [], watch.Watch()

    def follow():
        for event in watcher.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=start):
            seen.append((event["type"], event["object"].metadata.name, event["object"].data))
            if event["type"] == "DELETED":
                watcher.stop()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    core.create_namespaced_config_map(NAMESPACE, config_map("w", {"v": "1"}))
    core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"v": "2"}})
    core.delete_namespaced_config_map("w", NAMESPACE)
    thread.join(TIMEOUT_SECONDS)
    assert seen == [
        ("ADDED", "w", {"v": "1"}),
        ("MODIFIED", "w", {"v": "2"}),
        ("DELETED", "w", {"v": "2"}),
    ], seen
    # Without a start it begins with what is there; it ends when its time is over.
    names = [event["object"].metadata.name for event in watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, label_selector="odd", timeout_seconds=1)]
    assert names == ["n3", "n5"], names
    assert [event["type"] for event in watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=start, timeout_seconds=1)] == [
        "ADDED", "MODIFIED", "DELETED"]


def pods_run_and_are_talked_to():
    core = client.CoreV1Api()
    web = "mkdir /www && echo served > /www/index.html && exec httpd -f -p 8080 -h /www"
    core.create_namespaced_pod(NAMESPACE, pod("sleeper", "sh", "-c", f"echo up; {web}"))
    running = wait_for_pod(core, "sleeper")
    assert running.status.pod_ip and running.status.container_statuses[0].state.running.started_at
    until("the log", lambda: core.read_namespaced_pod_log("sleeper", NAMESPACE) == "up\n")
    follower = watch.Watch().stream(core.read_namespaced_pod_log, "sleeper", NAMESPACE)
    assert next(follower) == "up"
    follower.close()

    connect, get = core.connect_get_namespaced_pod_exec, ("sleeper", NAMESPACE)
    streams = {"stdin": False, "stdout": True, "stderr": True, "tty": False}
    assert stream(connect, *get, command=["echo", "a b", "c"], **streams) == "a b c\n"
    both = stream(connect, *get, command=["sh", "-c", "echo out; echo err >&2"], **streams)
    assert sorted(both.split()) == ["err", "out"], both
    session = stream(connect, *get, command=["sh"], **{**streams, "stdin": True}, _preload_content=False)
    session.write_stdin("echo typed; echo oops >&2; exit 7\n")
    session.run_forever(timeout=TIMEOUT_SECONDS)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("typed\n", "oops\n", 7)
    missing = stream(connect, *get, command=["/nope"], **streams, _preload_content=False)
    missing.run_forever(timeout=TIMEOUT_SECONDS)
    status = yaml.safe_load(missing.read_channel(3))
    assert status["status"] == "Failure" and "/nope" in status["message"], status
    try:
        stream(connect, "nobody", NAMESPACE, command=["true"], **streams)
        raise AssertionError("no such pod")
    except ApiException as error:
        assert error.status == 0 and "404" in error.reason, error

    forwarded = portforward(core.connect_get_namespaced_pod_portforward, *get, ports="8080")
    socket = forwarded.socket(8080)
    socket.setblocking(True)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while part := socket.recv(4096):
        answer += part
    assert answer.startswith(b"HTTP/1.0 200") or answer.startswith(b"HTTP/1.1 200"), answer
    assert answer.endswith(b"served\n") and forwarded.error(8080) is None, answer
    proxied = core.connect_get_namespaced_pod_proxy_with_path("sleeper:8080", NAMESPACE, "index.html")
    assert proxied == "served\n", proxied

    core.patch_namespaced_pod("sleeper", NAMESPACE, {"metadata": {"labels": {"patched": "yes"}}})
    assert core.read_namespaced_pod_status("sleeper", NAMESPACE).metadata.labels["patched"] == "yes"
    core.create_namespaced_pod_eviction(
        "sleeper", NAMESPACE, client.V1Eviction(metadata=client.V1ObjectMeta(name="sleeper", namespace=NAMESPACE))
    )
    until("the pod to go", lambda: not core.list_namespaced_pod(NAMESPACE, label_selector="app=sleeper").items)
    core.create_namespaced_pod(NAMESPACE, pod("once", "sh", "-c", "exit 3"))
    core.patch_namespaced_pod("once", NAMESPACE, {"spec": {"activeDeadlineSeconds": 600}})
    done = until(
        "the container to end",
        lambda: [
            status.last_state.terminated or status.state.terminated
            for status in core.read_namespaced_pod("once", NAMESPACE).status.container_statuses or []
            if status.last_state.terminated or status.state.terminated
        ],
    )
    assert done[0].exit_code == 3, done
    assert core.delete_namespaced_pod("once", NAMESPACE, grace_period_seconds=0).metadata.name == "once"
    reasons = {event.reason for event in core.list_namespaced_event(NAMESPACE).items}
    assert {"Scheduled", "Started", "Killing"} <= reasons, reasons


def deployments_scale_and_roll():
    apps = client.AppsV1Api()
    manifest = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: main, image: "{IMAGE}", command: [sleep, "3600"]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
"""
    utils.create_from_yaml(
        client.ApiClient(), yaml_objects=list(yaml.safe_load_all(manifest)), namespace=NAMESPACE
    )

    def ready(replicas):
        deployment = apps.read_namespaced_deployment_status("web", NAMESPACE)
        status = deployment.status
        return (
            status.observed_generation == deployment.metadata.generation
            and (status.ready_replicas or 0, status.updated_replicas or 0, status.replicas) == (replicas,) * 3
        )

    until("one replica", lambda: ready(1))
    scale = apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 2}})
    assert scale.kind == "Scale" and scale.spec.replicas == 2, scale
    assert apps.read_namespaced_deployment_scale("web", NAMESPACE).status.selector == "app=web"
    until("two replicas", lambda: ready(2))
    environment = {"containers": [{"name": "main", "env": [{"name": "A", "value": "b"}]}]}
    rolled = apps.patch_namespaced_deployment("web", NAMESPACE, {"spec": {"template": {"spec": environment}}})
    main = rolled.spec.template.spec.containers[0]
    assert main.image == IMAGE and main.env[0].value == "b", main
    until("the roll-out", lambda: ready(2))
    apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")
    until("all to go", lambda: not apps.list_namespaced_replica_set(NAMESPACE).items)
    assert not client.CoreV1Api().list_namespaced_pod(NAMESPACE, label_selector="app=web").items


def others_have_their_own_rights():
    core = client.CoreV1Api()
    core.create_namespaced_service_account(NAMESPACE, client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="bot")))
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("bot", NAMESPACE, request).status.token
    mine = client.Configuration.get_default_copy()
    mine.cert_file = mine.key_file = None
    mine.api_key = {"authorization": f"Bearer {token}"}
    bot = client.ApiClient(mine)
    name = f"system:serviceaccount:{NAMESPACE}:bot"
    assert client.AuthenticationV1Api(bot).create_self_subject_review({}).status.user_info.username == name
    denied = fails(403, "Forbidden", client.CoreV1Api(bot).list_node)
    assert denied["message"] == (
        f'nodes is forbidden: User "{name}" cannot list resource "nodes" in API group "" at the cluster scope'
    ), denied
    rbac = client.RbacAuthorizationV1Api()
    rule = client.V1PolicyRule(api_groups=[""], resources=["configmaps"], verbs=["get", "list"])
    rbac.create_namespaced_role(NAMESPACE, client.V1Role(metadata=client.V1ObjectMeta(name="bot"), rules=[rule]))
    rbac.create_namespaced_role_binding(
        NAMESPACE,
        client.V1RoleBinding(
            metadata=client.V1ObjectMeta(name="bot"),
            role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="bot"),
            subjects=[client.RbacV1Subject(kind="ServiceAccount", name="bot", namespace=NAMESPACE)],
        ),
    )
    until("the binding", lambda: not denies(client.CoreV1Api(bot).list_namespaced_config_map, NAMESPACE))
    attributes = client.V1ResourceAttributes(namespace=NAMESPACE, verb="delete", resource="configmaps")
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    )
    assert not client.AuthorizationV1Api(bot).create_self_subject_access_review(review).status.allowed
    assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed


def denies(call, *args):
    try:
        call(*args)
        return False
    except ApiException as error:
        return error.status == 403


def the_dynamic_client_knows_all_kinds():
    api = dynamic.DynamicClient(client.ApiClient())
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"a": "1"}}
    assert maps.create(body=manifest, namespace=NAMESPACE).data.a == "1"
    merged = maps.patch(
        name="dyn", namespace=NAMESPACE, body={"data": {"b": "2"}}, content_type="application/merge-patch+json"
    )
    assert merged.data.to_dict() == {"a": "1", "b": "2"}
    applied = maps.server_side_apply(
        name="dyn",
        namespace=NAMESPACE,
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"c": "3"}},
        field_manager="python",
    )
    assert applied.data.to_dict() == {"a": "1", "b": "2", "c": "3"}
    managers = {entry.manager: entry.operation for entry in applied.metadata.managedFields}
    assert managers.get("python") == "Apply", managers
    try:
        maps.server_side_apply(
            name="dyn",
            namespace=NAMESPACE,
            body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"c": "4"}},
            field_manager="other",
        )
        raise AssertionError("a conflict")
    except ConflictError as error:
        assert 'conflict with "python": .data.c' in json.loads(error.body)["message"], error.body
    events = [event["type"] for event in maps.watch(namespace=NAMESPACE, name="dyn", timeout=1)]
    assert events == ["ADDED"], events
    maps.delete(name="dyn", namespace=NAMESPACE)
    try:
        maps.get(name="dyn", namespace=NAMESPACE)
        raise AssertionError("it is gone")
    except NotFoundError:
        pass
    assert api.resources.search(kind="Deployment")


def custom_resources_are_like_all_others():
    extensions = client.ApiextensionsV1Api()
    spec = {
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "default": 1},
            "color": {"type": "string", "enum": ["red", "blue"]},
            "replicas": {"type": "integer"},
        },
    }
    status = {"type": "object", "properties": {"ready": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "boxes", "singular": "box", "kind": "Box", "shortNames": ["bx"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.ready"},
                    },
                }
            ],
        },
    }
    extensions.create_custom_resource_definition(definition)
    until(
        "the definition to be established",
        lambda: [
            condition
            for condition in extensions.read_custom_resource_definition("boxes.example.com").status.conditions or []
            if (condition.type, condition.status) == ("Established", "True")
        ],
    )
    boxes = ("example.com", "v1", NAMESPACE, "boxes")
    custom = client.CustomObjectsApi()
    box = {"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": {"color": "red", "replicas": 3, "x": 1}}
    until("its path", lambda: not missing(custom.list_namespaced_custom_object, *boxes))
    made = custom.create_namespaced_custom_object(*boxes, box)
    assert made["spec"] == {"color": "red", "replicas": 3, "size": 1}, made
    bad = {**box, "metadata": {"name": "bad"}, "spec": {"color": "green", "size": 0}}
    causes = fails(422, "Invalid", custom.create_namespaced_custom_object, *boxes, bad)["details"]["causes"]
    assert {cause["field"] for cause in causes} == {"spec.color", "spec.size"}, causes
    patched = custom.patch_namespaced_custom_object(*boxes, "b", {"spec": {"size": 5}})
    assert patched["spec"]["size"] == 5 and patched["metadata"]["generation"] == 2, patched
    custom.patch_namespaced_custom_object_status(*boxes, "b", {"status": {"ready": 2}})
    scale = custom.get_namespaced_custom_object_scale(*boxes, "b")
    assert (scale["kind"], scale["spec"]["replicas"], scale["status"]["replicas"]) == ("Scale", 3, 2), scale
    seen = watch.Watch().stream(custom.list_namespaced_custom_object, *boxes, timeout_seconds=1)
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [("ADDED", "b")]

    api = dynamic.DynamicClient(client.ApiClient())
    kind = api.resources.get(api_version="example.com/v1", kind="Box")
    assert kind.get(namespace=NAMESPACE).items[0].spec.size == 5
    applied = kind.server_side_apply(
        name="c", namespace=NAMESPACE, field_manager="python",
        body={"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": "c"}, "spec": {"size": 2}},
    )
    assert applied.metadata.managedFields[0].operation == "Apply", applied
    published = client.ApiClient().call_api("/openapi/v2", "GET", response_type="object", auth_settings=["BearerToken"])
    assert "com.example.v1.Box" in published[0]["definitions"]
    extensions.delete_custom_resource_definition("boxes.example.com")
    until("its objects to go", lambda: missing(custom.list_namespaced_custom_object, *boxes))


def missing(call, *args):
    try:
        call(*args)
        return False
    except ApiException as error:
        return error.status == 404


def every_kind_is_listed():
    """Each list that the client can ask for and the server has is one that the client can read."""
    served = json_of("/openapi/v2")["paths"]
    listed = 0
    for api, method, path in operations():
        # An event of the old API has no eventTime, without which this client reads no new one: so with upstream too.
        if path == "/apis/events.k8s.io/v1/events":
            continue
        if method.startswith("list_") and "{" not in path and path in served:
            items = getattr(api(), method)().items
            assert isinstance(items, list), method
            listed += 1
    assert listed > 20, listed


def the_published_paths_are_those_the_client_was_made_from():
    """The client is generated from upstream's document of the same version: ours has the same operations with the same
    names and parameters, as far as a group version is served."""
    document = json_of("/openapi/v2")
    group_versions = {path for path, item in document["paths"].items() if "APIResources" in str(item.get("get"))}
    compared = 0
    for api, name, path in operations():
        source = inspect.getsource(getattr(api, f"{name}_with_http_info"))
        verb = re.search(r"call_api\(\s*'[^']+', '(\w+)'", source).group(1).lower()
        base = "/".join(path.split("/")[: 3 if path.startswith("/api/") else 4]) + "/"
        if base not in group_versions:
            continue
        item = document["paths"].get(path)
        assert item and verb in item, f"{verb} {path} is missing"
        operation = item[verb]
        class_name = api.__name__.removesuffix("Api")
        ours = operation["operationId"].replace(class_name, "", 1)
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", ours).lower()
        assert snake == name, f"{path}: {operation['operationId']} for {name}"
        theirs = set(re.findall(r"query_params\.append\(\('(\w+)'", source))
        parameters = operation.get("parameters", []) + item.get("parameters", [])
        queries = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
        assert queries == theirs, f"{verb} {path}: {queries ^ theirs}"
        has_body = any(parameter["in"] == "body" for parameter in parameters)
        assert has_body == ("body_params = local_var_params['body']" in source), f"{verb} {path}: body"
        types = re.search(r"select_header_accept\(\s*\[([^\]]*)\]", source).group(1)
        assert operation["produces"] == re.findall(r"'([^']+)'", types), f"{verb} {path}: {operation['produces']}"
        compared += 1
    assert compared > 200, compared

    # Its models have the fields of the definitions.
    models = 0
    for name, definition in document["definitions"].items():
        model = getattr(client, model_name(name), None)
        if model is None or "properties" not in definition:
            continue
        assert set(model.attribute_map.values()) == set(definition["properties"]), name
        models += 1
    assert models > 200, models


def model_name(definition):
    """`V1Pod` for `io.k8s.api.core.v1.Pod`"""
    *_, version, kind = definition.split(".")
    prefix = {
        "io.k8s.api.authentication.v1.TokenRequest": "Authentication",
        "io.k8s.api.core.v1.Event": "Core",
        "io.k8s.api.core.v1.EventList": "Core",
        "io.k8s.api.core.v1.EndpointPort": "Core",
        "io.k8s.api.core.v1.ResourceClaim": "Core",
        "io.k8s.api.discovery.v1.EndpointPort": "Discovery",
        "io.k8s.api.events.v1.Event": "Events",
        "io.k8s.api.events.v1.EventList": "Events",
        "io.k8s.api.flowcontrol.v1.Subject": "Flowcontrol",
        "io.k8s.api.rbac.v1.Subject": "Rbac",
        "io.k8s.api.resource.v1.ResourceClaim": "Resource",
        "io.k8s.api.storage.v1.TokenRequest": "Storage",
        "io.k8s.api.admissionregistration.v1.ServiceReference": "Admissionregistration",
        "io.k8s.api.admissionregistration.v1.WebhookClientConfig": "Admissionregistration",
    }.get(definition, "")
    for package in ("apiextensions", "apiregistration"):
        if f".{package}." in definition and kind in ("ServiceReference", "WebhookClientConfig"):
            prefix = package.capitalize()
    return f"{prefix}{version[:1].upper()}{version[1:]}{kind}"


def operations():
    """Every operation of the generated client: its class, its method, its path."""
    for name, api in vars(client).items():
        if not name.endswith("Api") or name == "CustomObjectsApi":
            continue
        for method, function in inspect.getmembers(api, inspect.isfunction):
            if method.endswith("_with_http_info"):
                path = re.search(r"call_api\(\s*'([^']+)'", inspect.getsource(function)).group(1)
                yield api, method.removesuffix("_with_http_info"), path


def json_of(path):
    return client.ApiClient().call_api(path, "GET", response_type="object", auth_settings=["BearerToken"])[0]


def main():
    config.load_kube_config(config_file=KUBECONFIG)
    for test in (
        objects_are_written_and_read,
        changes_are_watched,
        pods_run_and_are_talked_to,
        deployments_scale_and_roll,
        others_have_their_own_rights,
        the_dynamic_client_knows_all_kinds,
        custom_resources_are_like_all_others,
        every_kind_is_listed,
        the_published_paths_are_those_the_client_was_made_from,
    ):
        started = time.monotonic()
        test()
        print(f"{test.__name__}: ok ({time.monotonic() - started:.1f} s)", flush=True)


main()
