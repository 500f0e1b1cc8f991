//! Commands that tell about the server and its objects: `explain`, `api-resources`, `cluster-info`, `proxy`, `get -o …`.

use super::{http_get, mentions, says, up};

#[test]
fn every_kind_is_explained_to_its_leaves() {
    let cluster = up();
    let resources = cluster.kubectl("api-resources --no-headers --sort-by=name");
    let mut explained = 0;
    for line in resources.lines() {
        // NAME [SHORTNAMES] APIVERSION NAMESPACED KIND
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[resource, .., version, _, kind] = words.as_slice() else { panic!("{line}") };
        let text = cluster.kubectl(&format!("explain {resource} --api-version={version} --recursive"));
        assert!(text.contains(&format!("KIND:       {kind}\n")), "{resource} {version}:\n{text}");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        assert_eq!(text.contains(&format!("GROUP:      {group}\n")), !group.is_empty(), "{text}");
        assert!(text.contains("  apiVersion\t<string>\n") && text.contains("DESCRIPTION:\n"), "{text}");
        explained += 1;
    }
    assert!(explained > 25, "{resources}");
    let pod = cluster.kubectl("explain pod --recursive");
    for field in [
        "      containers\t<[]Container> -required-\n",
        "metadata\t<ObjectMeta>\n",
        "        name\t<string> -required-\n",
        "          requiredDuringSchedulingIgnoredDuringExecution\t<NodeSelector>\n",
        "            protocol\t<string>\n",
    ] {
        let field = field.trim_start();
        assert!(pod.contains(field), "{field:?} is not in:\n{pod}");
    }
    mentions(
        &cluster,
        "kubectl explain pod.spec.containers.imagePullPolicy",
        &["FIELD: imagePullPolicy <string>\n", "Image pull policy. One of"],
    );
    mentions(&cluster, "kubectl explain pod --output=plaintext-openapiv2", &["KIND:     Pod\n", "   spec\t<Object>\n"]);
}

#[test]
fn the_server_tells_of_itself() {
    let cluster = up();
    let c = &cluster;
    cluster.kubectl("create configmap cm --from-literal=a=b");
    let proxy = cluster.background("kubectl proxy --port=0 --api-prefix=/k8s --accept-hosts=test");
    let said = proxy.wait_for(|said| said.contains("Starting to serve on 127.0.0.1:"));
    let port = said.trim_end().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let answer = http_get(("127.0.0.1", port), "/k8s/api/v1/namespaces/default/configmaps/cm").expect("an answer");
    assert!(answer.contains("\"data\":{\"a\":\"b\"}"), "{answer}");
    drop(proxy);

    let name = format!("keelson-{}", cluster.profile());
    says(c, "kubectl config current-context", &format!("{name}\n"));
    says(c, "kubectl config get-contexts -o name", &format!("{name}\n"));
    says(c, "kubectl config view --minify -o jsonpath='{.contexts[0].context.cluster}'", &name);
    says(c, "kubectl config set-context --current --namespace=kube-system", &format!("Context \"{name}\" modified.\n"));
    says(c, "kubectl get service kube-dns -o name", "service/kube-dns\n");
    says(c, "kubectl config set-context --current --namespace=default", &format!("Context \"{name}\" modified.\n"));

    says(c, "kubectl version -o json | grep -c gitVersion", "2\n");
    says(c, "kubectl api-resources --categories=all -o name | grep -c '^pods$'", "1\n");
    says(c, "kubectl api-resources --api-group=nope --no-headers", "");
    says(
        c,
        "kubectl api-resources --verbs=create --namespaced=false --api-group=authentication.k8s.io -o wide --no-headers | \
         tr -s ' ' | sort",
        "selfsubjectreviews authentication.k8s.io/v1 false SelfSubjectReview create \n\
         tokenreviews authentication.k8s.io/v1 false TokenReview create \n",
    );

    // The forms of output that are not tables.
    says(c, "kubectl get configmap cm -o jsonpath-as-json='{.data}'", "[\n    {\n        \"a\": \"b\"\n    }\n]\n");
    says(c, "echo '{{.data.a}}' > t && kubectl get configmap cm -o go-template-file=t", "b\n");
    says(c, "echo '{.data.a}' > j && kubectl get configmap cm -o jsonpath-file=j", "b\n");
    says(
        c,
        "printf 'NAME A\\nmetadata.name data.a\\n' > cc && kubectl get cm cm -o custom-columns-file=cc",
        "NAME   A\ncm     b\n",
    );
    mentions(
        c,
        "kubectl get configmap cm -o kyaml",
        &["---\n{\n  apiVersion: \"v1\",\n  data: {\n    a: \"b\",\n  },\n"],
    );
    says(c, "kubectl get configmap/cm serviceaccount/default -o name", "configmap/cm\nserviceaccount/default\n");
    says(c, "kubectl get configmap nope --ignore-not-found", "");
    mentions(c, "kubectl get service -A --show-kind --no-headers", &["kube-system   service/kube-dns "]);
    says(c, "kubectl get deployments,pods", "No resources found in default namespace.\n");
    let node = cluster.profile();
    mentions(c, &format!("kubectl get node {node} --subresource=status"), &[" Ready "]);
    mentions(c, "kubectl get all", &["service/kubernetes"]);
    mentions(c, "kubectl get endpointslices --server-print=false", &["NAME", "AGE"]);
    says(
        c,
        "kubectl get ns -o jsonpath='{.items[*].metadata.name}' --sort-by='{.metadata.name}'",
        "default kube-node-lease kube-public kube-system",
    );
}
