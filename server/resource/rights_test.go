package resource_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keelson-io/keelson/server"
)

// TestRights asks for things in the name of users with different roles.
func TestRights(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(file, []byte("root-token,root,1,\"system:masters\"\nann-token,ann,2\nbob-token,bob,3,\"devs,ops\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	member := newRightsMember(t, file)
	as := func(user string) *memberAs { return &memberAs{member, user} }
	root, ann, bob := as("root"), as("ann"), as("bob")
	roles := "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
	bindings := "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"

	member.eventually("the default namespace", func() bool { return root.do("GET", "/api/v1/namespaces/default", nil).code == 200 })
	member.eventually("the roles of the beginning", func() bool { return ann.do("GET", "/api", nil).code == 200 })
	if code := member.do("GET", configmaps, nil).code; code != 403 {
		t.Errorf("nobody: %d", code)
	}
	if code := member.do("GET", configmaps, nil, "Authorization", "Bearer wrong").code; code != 401 {
		t.Errorf("a wrong token: %d", code)
	}
	root.want(t, 200, "GET", configmaps, nil)
	ann.want(t, 403, "GET", configmaps, nil)
	ann.want(t, 200, "GET", "/api", nil)
	root.want(t, 201, "POST", roles, `{"metadata":{"name":"r"},"rules":[{"verbs":["get","list"],"apiGroups":[""],"resources":["configmaps"]}]}`)
	root.want(t, 201, "POST", bindings, `{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"ann"}]}`)
	root.want(t, 201, "POST", bindings, `{"metadata":{"name":"e"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"admin"},"subjects":[{"kind":"Group","name":"devs"}]}`)
	member.eventually("ann may list", func() bool { return ann.do("GET", configmaps, nil).code == 200 })
	member.eventually("bob may create", func() bool { return bob.do("POST", configmaps+"?dryRun=All", configmap("x")).code == 201 })
	ann.want(t, 403, "POST", configmaps, configmap("x"))
	ann.want(t, 403, "GET", "/api/v1/namespaces/kube-system/configmaps", nil)
	ann.want(t, 403, "GET", "/api/v1/configmaps", nil)
	// Nobody gives away more than he has.
	bob.want(t, 201, "POST", roles, `{"metadata":{"name":"less"},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["configmaps"]}]}`)
	bob.want(t, 403, "POST", roles, `{"metadata":{"name":"more"},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}`)
	bob.want(t, 403, "POST", bindings, `{"metadata":{"name":"me"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"User","name":"bob"}]}`)

	review := "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	for verb, want := range map[string]string{"list": "true", "delete": "false"} {
		a := ann.do("POST", review, `{"spec":{"resourceAttributes":{"namespace":"default","verb":"`+verb+`","resource":"configmaps"}}}`)
		if got := a.str2("status", "allowed"); got != want {
			t.Errorf("may ann %s: %s %s", verb, got, a.raw)
		}
	}
	if code := member.do("GET", configmaps, nil, "Authorization", "Bearer root-token", "Impersonate-User", "ann").code; code != 200 {
		t.Errorf("root as ann: %d", code)
	}
	if code := member.do("GET", configmaps, nil, "Authorization", "Bearer ann-token", "Impersonate-User", "root").code; code != 403 {
		t.Errorf("ann as root: %d", code)
	}
}

type memberAs struct {
	m    *member
	user string
}

func (a *memberAs) do(method, path string, body any) answer {
	return a.m.do(method, path, body, "Authorization", "Bearer "+a.user+"-token")
}

func (a *memberAs) want(t *testing.T, code int, method, path string, body any) {
	t.Helper()
	if got := a.do(method, path, body); got.code != code {
		t.Errorf("%s: %s %s: %d %s, want %d", a.user, method, path, got.code, got.raw, code)
	}
}

func newRightsMember(t *testing.T, tokens string) *member {
	return newMember(t, func(cfg *server.Config) { cfg.ResourceAuthorization, cfg.ResourceTokenFile = server.RBAC, tokens })
}

// TestTokensAreReadAgain takes over what the file of tokens holds, unless it is broken.
func TestTokensAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.csv")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a-token,a,1,system:masters\n")
	m := newRightsMember(t, file)
	code := func(token string) int { return m.do("GET", "/api", nil, "Authorization", "Bearer "+token).code }
	if code("a-token") != 200 || code("b-token") != 401 {
		t.Errorf("%d %d", code("a-token"), code("b-token"))
	}
	write("b-token,b,2,system:masters\nc-token,c,3\n")
	m.eventually("the other token", func() bool { return code("b-token") == 200 && code("a-token") == 401 })
	write("broken")
	write("a-token,a,1,system:masters\nd-token,d,4\n")
	m.eventually("the first token again", func() bool { return code("a-token") == 200 && code("b-token") == 401 })
}
