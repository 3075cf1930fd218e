package kinds

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// layouts has the columns of each kind that kubectl shows in a way of its own,
// by "GROUP KIND".
var layouts = sync.OnceValue(func() map[string][]Column {
	all := map[string][]Column{}
	for _, part := range []map[string][]Column{coreColumns(), workloadColumns(), storageColumns(), otherColumns(), policyColumns(), deviceColumns()} {
		for kind, columns := range part {
			all[kind] = columns
		}
	}
	return all
})

func coreColumns() map[string][]Column {
	return map[string][]Column{
		" Pod": append(columns(made("Ready", podReady), made("Status", podStatus), made("Restarts", podRestarts)),
			wide(made("IP", func(r row) string { return first(r, "status.podIPs", "ip") }), text("Node", "spec.nodeName", none),
				text("Nominated Node", "status.nominatedNodeName", none), made("Readiness Gates", readinessGates))...),
		" PodTemplate": append(append([]Column{nameColumn}, containers("template")...),
			made("Pod Labels", func(r row) string { return pairs(r.Sub("template.metadata.labels")) })),
		" Service": append(columns(text("Type", "spec.type"), made("Cluster-IP", clusterIP), made("External-IP", externalIP), made("Port(s)", servicePorts)),
			wide(made("Selector", func(r row) string { return pairs(r.Sub("spec.selector")) }))...),
		" Endpoints": columns(made("Endpoints", endpoints)),
		" Node": append(columns(made("Status", nodeStatus), made("Roles", nodeRoles)),
			append([]Column{text("Version", "status.nodeInfo.kubeletVersion")},
				wide(made("Internal-IP", nodeAddress("InternalIP")), made("External-IP", nodeAddress("ExternalIP")),
					text("OS-Image", "status.nodeInfo.osImage", "<unknown>"), made("Kernel-Version", kernel),
					text("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "<unknown>"))...)...),
		" Event":          eventColumns(),
		" Namespace":      columns(text("Status", "status.phase")),
		" Secret":         columns(text("Type", "type"), size("Data", "data").called("string")),
		" ConfigMap":      columns(Column{"Data", "string", false, func(r row) any { return int64(r.Size("data") + r.Size("binaryData")) }}),
		" ServiceAccount": columns(),
		" ComponentStatus": {nameColumn, made("Status", health),
			made("Message", func(r row) string { return r.typed("conditions", "Healthy").Text("message") }),
			made("Error", func(r row) string { return r.typed("conditions", "Healthy").Text("error") })},
		" ResourceQuota": columns(made("Request", quota(false)), made("Limit", quota(true))),
	}
}

func workloadColumns() map[string][]Column {
	replicas := func(selector func(row) string) []Column {
		return append(columns(integer("Desired", "spec.replicas"), integer("Current", "status.replicas"), integer("Ready", "status.readyReplicas")),
			ofTemplate("spec.template", selector)...)
	}
	ready := made("Ready", func(r row) string { return fmt.Sprintf("%d/%d", r.Int("status.readyReplicas"), r.Int("spec.replicas")) })
	return map[string][]Column{
		" ReplicationController": replicas(func(r row) string { return pairs(r.Sub("spec.selector")) }),
		"apps ReplicaSet":        replicas(labelSelector("spec.selector")),
		"apps Deployment": append(columns(ready, integer("Up-to-date", "status.updatedReplicas").called("string"),
			integer("Available", "status.availableReplicas").called("string")),
			ofTemplate("spec.template", func(r row) string { return selector(r.Sub("spec.selector")) })...),
		"apps StatefulSet": append(columns(ready), ofTemplate("spec.template", nil)...),
		"apps DaemonSet": append(columns(integer("Desired", "status.desiredNumberScheduled"), integer("Current", "status.currentNumberScheduled"),
			integer("Ready", "status.numberReady"), integer("Up-to-date", "status.updatedNumberScheduled"), integer("Available", "status.numberAvailable"),
			made("Node Selector", func(r row) string { return pairs(r.Sub("spec.template.spec.nodeSelector")) })),
			ofTemplate("spec.template", labelSelector("spec.selector"))...),
		"apps ControllerRevision": columns(made("Controller", controller), integer("Revision", "revision").called("string")),
		"batch Job": append(columns(made("Status", jobStatus), made("Completions", jobCompletions), made("Duration", jobDuration)),
			ofTemplate("spec.template", labelSelector("spec.selector"))...),
		"batch CronJob": append(columns(text("Schedule", "spec.schedule"), text("Timezone", "spec.timeZone", none), made("Suspend", suspended).called("boolean"),
			size("Active", "status.active"), made("Last Schedule", func(r row) string {
				if r.At("status.lastScheduleTime") == nil {
					return none
				}
				return r.since("status.lastScheduleTime")
			})), ofTemplate("spec.jobTemplate.spec.template", labelSelector("spec.jobTemplate.spec.selector"))...),
		"autoscaling HorizontalPodAutoscaler": columns(made("Reference", func(r row) string {
			return r.Text("spec.scaleTargetRef.kind") + "/" + r.Text("spec.scaleTargetRef.name")
		}), made("Targets", metricTargets), made("MinPods", func(r row) string { return number(r.At("spec.minReplicas"), "<unset>") }),
			integer("MaxPods", "spec.maxReplicas").called("string"), integer("Replicas", "status.currentReplicas").called("string")),
		"policy PodDisruptionBudget": columns(made("Min Available", func(r row) string { return number(r.At("spec.minAvailable"), "N/A") }),
			made("Max Unavailable", func(r row) string { return number(r.At("spec.maxUnavailable"), "N/A") }),
			integer("Allowed Disruptions", "status.disruptionsAllowed")),
	}
}

func storageColumns() map[string][]Column {
	phase := made("Status", func(r row) string {
		if r.At("metadata.deletionTimestamp") != nil {
			return "Terminating"
		}
		return r.Text("status.phase")
	})
	class := made("StorageClass", func(r row) string {
		return or(r.Annotation("volume.beta.kubernetes.io/storage-class"), r.Text("spec.storageClassName"))
	})
	attributes := text("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>")
	mode := wide(text("VolumeMode", "spec.volumeMode", "<unset>"))
	return map[string][]Column{
		" PersistentVolume": append([]Column{nameColumn, text("Capacity", "spec.capacity.storage", "0"), made("Access Modes", accessModes("spec.accessModes")),
			text("Reclaim Policy", "spec.persistentVolumeReclaimPolicy"), phase, made("Claim", func(r row) string {
				if c := r.Sub("spec.claimRef"); c != nil {
					return c.Text("namespace") + "/" + c.Text("name")
				}
				return ""
			}), class, attributes, text("Reason", "status.reason"), ageColumn}, mode...),
		" PersistentVolumeClaim": append(columns(phase, text("Volume", "spec.volumeName"), made("Capacity", func(r row) string {
			if r.Text("spec.volumeName") == "" {
				return ""
			}
			return or(r.Text("status.capacity.storage"), "0")
		}), made("Access Modes", func(r row) string {
			if r.Text("spec.volumeName") == "" {
				return ""
			}
			return accessModes("status.accessModes")(r)
		}), class, attributes), mode...),
		"storage.k8s.io StorageClass": {defaultName("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"),
			text("Provisioner", "provisioner"), text("ReclaimPolicy", "reclaimPolicy", "Delete"), text("VolumeBindingMode", "volumeBindingMode", "Immediate"),
			boolean("AllowVolumeExpansion", "allowVolumeExpansion", false).called("string"), ageColumn},
		"storage.k8s.io VolumeAttachment": columns(text("Attacher", "spec.attacher"), text("PV", "spec.source.persistentVolumeName"),
			text("Node", "spec.nodeName"), boolean("Attached", "status.attached", false)),
		"storage.k8s.io VolumeAttributesClass": columns(text("DriverName", "driverName")),
		"storage.k8s.io CSINode":               columns(size("Drivers", "spec.drivers")),
		"storage.k8s.io CSIDriver": columns(boolean("AttachRequired", "spec.attachRequired", true), boolean("PodInfoOnMount", "spec.podInfoOnMount", false),
			boolean("StorageCapacity", "spec.storageCapacity", false), made("TokenRequests", tokenRequests),
			boolean("RequiresRepublish", "spec.requiresRepublish", false),
			made("Modes", func(r row) string { return or(strings.Join(r.Texts("spec.volumeLifecycleModes"), ","), none) })),
	}
}

func otherColumns() map[string][]Column {
	binding := append(columns(made("Role", func(r row) string { return r.Text("roleRef.kind") + "/" + r.Text("roleRef.name") })),
		wide(made("Users", subjects("User")), made("Groups", subjects("Group")), made("ServiceAccounts", subjects("ServiceAccount")))...)
	webhooks := columns(size("Webhooks", "webhooks"))
	return map[string][]Column{
		"networking.k8s.io Ingress": columns(text("Class", "spec.ingressClassName", none), made("Hosts", ingressHosts),
			made("Address", loadBalancer), made("Ports", func(r row) string {
				if r.Size("spec.tls") > 0 {
					return "80, 443"
				}
				return "80"
			})),
		"networking.k8s.io IngressClass": {defaultName("ingressclass.kubernetes.io/is-default-class"), text("Controller", "spec.controller"),
			made("Parameters", ingressParameters), ageColumn},
		"networking.k8s.io NetworkPolicy": columns(made("Pod-Selector", labelSelector("spec.podSelector"))),
		"networking.k8s.io ServiceCIDR":   columns(made("CIDRs", func(r row) string { return strings.Join(r.Texts("spec.cidrs"), ",") })),
		"networking.k8s.io IPAddress":     {nameColumn, made("ParentRef", parentRef)},
		"discovery.k8s.io EndpointSlice": columns(text("AddressType", "addressType"), made("Ports", slicePorts),
			made("Endpoints", sliceEndpoints)),
		"rbac.authorization.k8s.io RoleBinding":        binding,
		"rbac.authorization.k8s.io ClusterRoleBinding": binding,
		"coordination.k8s.io Lease":                    columns(text("Holder", "spec.holderIdentity")),
		"certificates.k8s.io CertificateSigningRequest": {nameColumn, ageColumn, text("SignerName", "spec.signerName", none), text("Requestor", "spec.username"),
			made("RequestedDuration", requestedDuration), made("Condition", certificateStatus)},
		"scheduling.k8s.io PriorityClass": append(columns(integer("Value", "value"), boolean("Global-Default", "globalDefault", false)),
			text("PreemptionPolicy", "preemptionPolicy")),
		"node.k8s.io RuntimeClass":                                    columns(text("Handler", "handler")),
		"admissionregistration.k8s.io MutatingWebhookConfiguration":   webhooks,
		"admissionregistration.k8s.io ValidatingWebhookConfiguration": webhooks,
		"flowcontrol.apiserver.k8s.io FlowSchema": append(columns(text("PriorityLevel", "spec.priorityLevelConfiguration.name"),
			integer("MatchingPrecedence", "spec.matchingPrecedence").called("string"), text("DistinguisherMethod", "spec.distinguisherMethod.type", none)),
			made("MissingPL", func(r row) string { return or(r.Condition("Dangling").Text("status"), "?") })),
		"flowcontrol.apiserver.k8s.io PriorityLevelConfiguration": columns(text("Type", "spec.type"), limit("NominalConcurrencyShares", "nominalConcurrencyShares"),
			limit("Queues", "limitResponse.queuing.queues"), limit("HandSize", "limitResponse.queuing.handSize"), limit("QueueLengthLimit", "limitResponse.queuing.queueLengthLimit")),
		"apiregistration.k8s.io APIService": columns(made("Service", apiService), made("Available", available)),
	}
}

func policyColumns() map[string][]Column {
	kind := made("ParamKind", func(r row) string {
		if p := r.Sub("spec.paramKind"); p != nil {
			return p.Text("apiVersion") + "/" + p.Text("kind")
		}
		return "<unset>"
	})
	binding := columns(text("PolicyName", "spec.policyName"), made("ParamRef", paramRef))
	return map[string][]Column{
		"admissionregistration.k8s.io ValidatingAdmissionPolicy":        columns(size("Validations", "spec.validations"), kind),
		"admissionregistration.k8s.io MutatingAdmissionPolicy":          columns(size("Mutations", "spec.mutations"), kind),
		"admissionregistration.k8s.io ValidatingAdmissionPolicyBinding": binding,
		"admissionregistration.k8s.io MutatingAdmissionPolicyBinding":   binding,
		"internal.apiserver.k8s.io StorageVersion":                      columns(text("CommonEncodingVersion", "status.commonEncodingVersion", "<unset>"), made("StorageVersions", storageVersions)),
		"coordination.k8s.io LeaseCandidate": columns(text("LeaseName", "spec.leaseName"), text("BinaryVersion", "spec.binaryVersion"),
			text("EmulationVersion", "spec.emulationVersion")),
		"storagemigration.k8s.io StorageVersionMigration": {nameColumn, made("Resource", func(r row) string {
			return strings.TrimSuffix(r.Text("spec.resource.resource")+"."+r.Text("spec.resource.group"), ".")
		}), made("Status", lastTrue("Unknown", "Running", "Failed", "Succeeded"))},
		"certificates.k8s.io PodCertificateRequest": append([]Column{nameColumn, text("PodName", "spec.podName"), text("ServiceAccountName", "spec.serviceAccountName"),
			text("NodeName", "spec.nodeName"), text("SignerName", "spec.signerName"), made("State", lastTrue("Pending", "Issued", "Denied", "Failed"))},
			wide(made("UnverifiedUserAnnotations", func(r row) string { return pairs(r.Sub("spec.unverifiedUserAnnotations")) }))...),
		"certificates.k8s.io ClusterTrustBundle": {nameColumn, text("SignerName", "spec.signerName", none)},
	}
}

func deviceColumns() map[string][]Column {
	return map[string][]Column{
		"resource.k8s.io DeviceClass":           columns(),
		"resource.k8s.io ResourceClaim":         columns(made("State", claimState)),
		"resource.k8s.io ResourceClaimTemplate": columns(),
		"resource.k8s.io ResourceSlice":         columns(text("Node", "spec.nodeName"), text("Driver", "spec.driver"), text("Pool", "spec.pool.name")),
		"resource.k8s.io DeviceTaintRule": columns(text("Key", "spec.taint.key"), text("Value", "spec.taint.value"), text("Effect", "spec.taint.effect"),
			made("TimeAdded", func(r row) string {
				if r.At("spec.taint.timeAdded") == nil {
					return ""
				}
				return r.since("spec.taint.timeAdded")
			})),
	}
}

// defaultName marks the object that an annotation makes the default.
func defaultName(annotations ...string) Column {
	return made("Name", func(r row) string {
		name := r.Text("metadata.name")
		if slices.ContainsFunc(annotations, func(a string) bool { return r.Annotation(a) == "true" }) {
			name += " (default)"
		}
		return name
	})
}

// limit is a number of a priority level that is limited.
func limit(name, path string) Column {
	return made(name, func(r row) string { return number(r.Sub("spec.limited").At(path), none) })
}

// number prints a value that is a number or, at times, a string.
func number(v any, nothing string) string {
	if v == nil {
		return nothing
	}
	return fmt.Sprint(v)
}
